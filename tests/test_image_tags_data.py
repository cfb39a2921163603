import dataclasses

import numpy as np
import pytest
import small_world

from umair_jax.data import image_tags
from umair_jax.data.image_tags import ImageTagsConfig

THIRDS = (0.6, 0.2, 0.2)


class Has:
    """Pictures of some items."""

    def __init__(self, has_picture):
        self._has = has_picture

    def read(self, row):
        return b"picture" if self._has[row - 1] else b""


def pictured(tags, has_picture, **numbers):
    made = small_world.dataset(items=len(tags))
    columns = {name: np.array([-1, *values], np.int64) for name, values in numbers.items()}
    items = dataclasses.replace(made.items, tags=((), *map(tuple, tags)), **columns)
    return dataclasses.replace(made, items=items, images=Has(has_picture))


@pytest.fixture
def dataset():
    tags = [["cat", "red"], ["cat"], ["dog", "red"], [], ["cat", "rare"]] * 6
    return pictured(tags, [i != 3 for i in range(30)], total_view=range(30))


def test_tags_are_counted_on_training_drawings_with_a_picture(dataset):
    made = image_tags.build(dataset, ImageTagsConfig(min_count=3, fractions=THIRDS))
    together = np.concatenate(list(made.rows.values()))
    assert sorted(together) == [row for row in range(1, 31) if row != 4]
    assert [len(made.rows[part]) for part in image_tags.PARTS] == [17, 6, 6]
    for name, count in zip(made.names, made.counts, strict=True):
        assert count == sum(name in dataset.items.tags[row] for row in made.rows["train"]) >= 3
    assert list(made.counts) == sorted(made.counts, reverse=True)
    for row in range(1, 31):
        found = {made.names[i] for i in made.tags[row] if i < len(made.names)}
        assert found == set(dataset.items.tags[row]) & set(made.names)
    assert made.untagged == sum(
        not set(dataset.items.tags[row]) & set(made.names) for row in made.rows["train"]
    )


def test_held_out_drawings_decide_nothing(dataset):
    config = ImageTagsConfig(min_count=3, fractions=THIRDS)
    before = image_tags.build(dataset, config)
    tags = list(dataset.items.tags)
    for part in ("valid", "test"):
        for row in before.rows[part]:
            tags[row] = ("something", "else")
    items = dataclasses.replace(dataset.items, tags=tuple(tags))
    after = image_tags.build(dataclasses.replace(dataset, items=items), config)
    assert (before.names, list(before.counts)) == (after.names, list(after.counts))


def test_seed_and_fractions_choose_the_parts(dataset):
    rows = [
        image_tags.build(dataset, ImageTagsConfig(1, fractions=THIRDS, split_seed=seed)).rows
        for seed in (0, 0, 1)
    ]
    assert all((rows[0][part] == rows[1][part]).all() for part in image_tags.PARTS)
    assert any(set(rows[0][part]) != set(rows[2][part]) for part in image_tags.PARTS)


def test_excluded_and_rare_tags_are_dropped_and_counted(dataset):
    made = image_tags.build(dataset, ImageTagsConfig(1, exclude=("cat",), fractions=THIRDS))
    assert "cat" not in made.names
    assert made.dropped_tags == 1
    high = image_tags.build(dataset, ImageTagsConfig(6, fractions=THIRDS))
    assert high.dropped_tags >= 1


def test_popularity_falls_into_buckets(dataset):
    config = ImageTagsConfig(1, fractions=THIRDS, popularity={"total_view": (5, 10)})
    made = image_tags.build(dataset, config)
    assert made.bucket_counts == {"total_view": 3}
    buckets = made.buckets["total_view"]
    assert buckets[0] == -1
    assert [buckets[1 + views] for views in (0, 4, 5, 9, 10, 29)] == [0, 0, 1, 1, 2, 2]


def test_nothing_to_learn_is_an_error(dataset):
    with pytest.raises(ValueError, match="lower min_count"):
        image_tags.build(dataset, ImageTagsConfig(min_count=99, fractions=THIRDS))
    few = pictured([["cat"]] * 3, [True] * 3)
    with pytest.raises(ValueError, match="leave valid and test empty"):
        image_tags.build(few, ImageTagsConfig(1, fractions=(0.9, 0.05, 0.05)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_count": 0}, "min_count"),
        ({"fractions": (0.5, 0.5, 0.5)}, "fractions"),
        ({"popularity": {"width": (1,)}}, "got 'width'"),
        ({"popularity": {"total_view": (5, 2)}}, "ascending"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ImageTagsConfig(**options)
