import dataclasses

import numpy as np
import pytest
import small_world
from small_world import FRACTIONS, ITEMS, SCHEMA, USERS, WIDTHS, build, keep_split, readings

from umair_jax.data import ranking, ranking_vectors, splits
from umair_jax.data.fields import LONG_TAGS, SHORT_TAGS, Side
from umair_jax.data.ranking import COUNTED
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.schema_config import SchemaConfig


def split_of(data, kind):
    return splits.split(data, kind, FRACTIONS, 0)


def with_log(data, log):
    return dataclasses.replace(data, interactions=log)


def same_order(log):
    """Whether a log is sorted by time, which all that follows relies on."""
    return (np.diff(log.timestamp) >= 0).all()


# Nothing leaks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", splits.KINDS)
def test_an_interaction_sees_neither_its_label_nor_anything_from_its_second_on(kind, monkeypatch):
    data = small_world.dataset(rows=48)
    log, part = data.interactions, split_of(data, kind)
    before = readings(build(data, split=kind))
    rng = np.random.default_rng(1)
    for k in range(len(log)):
        now = log.timestamp >= log.timestamp[k]
        others = now & (np.arange(len(log)) != k)

        def changed(values, new, where):
            return np.where(where, new, values).astype(values.dtype)

        truth = rng.random(len(log)).astype(np.float32)
        other_log = dataclasses.replace(
            log,
            label=changed(log.label, 1 - log.label, now),
            user=changed(log.user, rng.integers(1, USERS + 1, len(log)), others),
            item=changed(log.item, rng.integers(1, ITEMS + 1, len(log)), others),
            timestamp=changed(log.timestamp, log.timestamp + rng.integers(0, 9), others),
            true_probability=changed(truth, log.true_probability, ~now),
            sampled=changed(log.sampled, rng.random(len(log)) < 0.5, now),
        )
        mixture = rng.random((USERS + 1, 4)).astype(np.float32)
        other = dataclasses.replace(
            with_log(data, other_log), users=dataclasses.replace(data.users, true_mixture=mixture)
        )
        keep_split(monkeypatch, part)
        np.testing.assert_array_equal(readings(build(other, split=kind))[k], before[k])

        # And if from this second on there were nothing else at all.
        kept = np.flatnonzero(~others)
        alone = log.take(kept)
        alone.label[-1] ^= 1
        assert same_order(alone)
        keep_split(monkeypatch, part[kept])
        np.testing.assert_array_equal(
            readings(build(with_log(data, alone), split=kind))[-1], before[k]
        )


@pytest.mark.parametrize("kind", splits.KINDS)
def test_an_earlier_bookmark_of_the_same_user_is_seen(kind, monkeypatch):
    data, vectors = small_world.dataset(), small_world.bank()
    log, part = data.interactions, split_of(data, kind)
    before = readings(build(data, vectors, split=kind))
    keep_split(monkeypatch, part)
    seen = hidden = 0
    for k in range(len(log)):
        earlier = (log.user == log.user[k]) & (log.timestamp < log.timestamp[k]) & (log.label == 1)
        for j in np.flatnonzero(earlier & vectors.has_image[log.item])[-2:]:
            label = log.label.copy()
            label[j] = 0
            after = readings(build(with_log(data, dataclasses.replace(log, label=label)),
                                   vectors, split=kind))  # fmt: skip
            differs = bool((after[k] != before[k]).any())
            # A held-out drawing is in nobody's history.
            assert differs == (kind != "cold_item" or part[j] == splits.TRAIN)
            seen, hidden = seen + differs, hidden + (not differs)
    assert seen > 20
    assert (hidden > 5) == (kind == "cold_item")


@pytest.mark.parametrize("kind", ["cold_item", "cold_user", "leave_last_out"])
def test_nothing_that_is_held_out_reaches_a_training_row(kind, monkeypatch):
    for seed in range(5):
        data = small_world.dataset(seed)
        log, part = data.interactions, split_of(data, kind)
        train = part == splits.TRAIN
        before = readings(build(data, split=kind))[train]
        rng = np.random.default_rng(seed)
        items = rng.integers(1, ITEMS + 1, len(log))
        keep_split(monkeypatch, part)
        for change in (
            {"label": np.where(train, log.label, 1 - log.label)},
            {"item": np.where(train, log.item, items).astype(np.int32)},
            {"sampled": log.sampled ^ ~train},
            {"true_probability": np.where(train, log.true_probability, 0)},
        ):
            other = with_log(data, dataclasses.replace(log, **change))
            np.testing.assert_array_equal(readings(build(other, split=kind))[train], before)
        keep_split(monkeypatch, part[train])
        alone = with_log(data, log.take(np.flatnonzero(train)))
        np.testing.assert_array_equal(readings(build(alone, split=kind)), before)
        monkeypatch.undo()


def test_the_texts_and_vectors_of_a_held_out_drawing_reach_no_training_row():
    """With `standardise` two numbers a channel come from the whole catalogue, hence without."""
    data, vectors = small_world.dataset(), small_world.bank()
    options = {"split": "cold_item", "standardise": False}
    part, log = split_of(data, "cold_item"), data.interactions
    train = part == splits.TRAIN
    cold = np.isin(np.arange(ITEMS + 1), log.item[~train])
    items = data.items

    def other(column):
        if isinstance(column, np.ndarray):
            return np.where(cold, 1, column)
        new = ("tag 1", "x") if isinstance(column[0], tuple) else "x"
        return tuple(new if c else value for c, value in zip(cold, column, strict=True))

    changed = dataclasses.replace(
        data, items=dataclasses.replace(items, **{
            field.name: other(getattr(items, field.name)) for field in dataclasses.fields(items)
        })
    )  # fmt: skip
    shifted = dataclasses.replace(vectors, **{
        name: getattr(vectors, name) + cold[:, None].astype(np.float32) for name in WIDTHS
    })  # fmt: skip
    before = readings(build(data, vectors, **options))
    after = readings(build(changed, shifted, **options))
    np.testing.assert_array_equal(after[train], before[train])
    assert (after[~train] != before[~train]).any(axis=1).all()


def test_the_truth_is_no_input():
    data = small_world.dataset()
    bare = dataclasses.replace(
        data,
        users=dataclasses.replace(data.users, true_mixture=None),
        interactions=dataclasses.replace(data.interactions, true_probability=None),
    )
    with_truth, without = build(data), build(bare)
    for ours, theirs in ((with_truth.columns, without.columns),
                         (with_truth.context, without.context)):  # fmt: skip
        assert set(ours) == set(theirs)
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name])
            assert not np.isin(np.ravel(array), data.interactions.true_probability[1:]).any()
            assert not np.isin(np.ravel(array), data.users.true_mixture).any()


# What is in the columns and the context ---------------------------------------------------------


@pytest.mark.parametrize("kind", splits.KINDS)
def test_rows_and_counts_equal_the_obvious_way(kind):
    data = small_world.dataset(3)
    windows = {"long_max": 6, "short_max": 2}
    built = build(data, split=kind, **windows)
    columns, context, schema = built.columns, built.context, built.schema
    users, items = schema.sparse(Side.USER), schema.sparse(Side.ITEM)
    own = [f for f in users if f.column not in (LONG_TAGS, SHORT_TAGS)]
    tags = [f for f in users if f not in own]
    for k in range(0, len(data.interactions), 4):
        expected = small_world.table_rows(schema, data, built.split, kind, k, **windows)
        by_name = {f.name: expected[:, j] for j, f in enumerate((*users, *items))}
        for name, fields, pointer in (
            ("user_rows", own, "user"),
            ("state_rows", tags, "state"),
            ("item_rows", items, "item"),
        ):
            found = context[name][columns[pointer][k]].reshape(2, len(fields))
            for j, field in enumerate(fields):
                if field.column in COUNTED:
                    assert found[:, j].tolist() == [0, 0]
                    held = small_world.value(field, data, built.split, kind, k)
                    local = schema.encode(field.name, np.array([held]))
                    assert columns[field.name][k] == local[0]
                else:
                    assert found[:, j].tolist() == by_name[field.name].tolist()


def test_counts_are_small_integers_and_the_rate_is_smoothed():
    data = small_world.dataset()
    built = build(data)
    assert [f.name for f in ranking.counted(built.schema)] == [
        "total_bookmarks",
        "total_view",
        "bookmark_rate",
    ]
    edges = np.array(SCHEMA.bookmark_rate)
    for k in range(len(data.interactions)):
        views, marks = small_world.counts_before(data, built.split, "temporal", k)
        rate = (marks + 1) / (views + 4)
        assert built.columns["bookmark_rate"][k] == (edges <= rate).sum()
    assert {built.columns[name].dtype for name in COUNTED} == {np.dtype(np.int8)}
    many = dataclasses.replace(SCHEMA, boundaries={"total_view": tuple(map(float, range(1, 300)))})
    assert build(data, schema=many).columns["total_view"].dtype == np.int16
    without = dataclasses.replace(SCHEMA, bookmark_rate=())
    assert "bookmark_rate" not in build(data, schema=without).columns


def mean_of(rows, vectors, present):
    there = [vectors[row].astype(np.float64) for row in rows if present[row]]
    return np.mean(there, axis=0) if there else np.zeros(vectors.shape[1])


@pytest.mark.parametrize("standardise", [False, True])
def test_vectors_and_their_means_equal_the_obvious_way(standardise):
    data, vectors = small_world.dataset(), small_world.bank()
    built = build(data, vectors, standardise=standardise, short_max=2)
    present = {"content": vectors.has_image, "style": vectors.has_image, "text": vectors.has_text}
    np.testing.assert_array_equal(built.context["present"], np.stack(list(present.values()), 1))
    for name, there in present.items():
        expected = getattr(vectors, name).astype(np.float64)
        if standardise:
            known = expected[there]
            expected = np.where(there[:, None], (expected - known.mean(0)) / known.std(0), 0)
            found = built.context[name][there].astype(np.float64)
            np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
            np.testing.assert_allclose(found.std(0), 1, atol=1e-6)
        np.testing.assert_allclose(built.context[name], expected, rtol=1e-6, atol=1e-6)
        assert built.context[name].dtype == np.float32
        for window, count in (("long", 50), ("short", 2)):
            means = built.context[f"{window}_term_{name}"]
            for k in range(0, len(data.interactions), 3):
                rows = small_world.bookmarks_before(data, built.split, "temporal", k, count)
                np.testing.assert_allclose(
                    means[built.columns["state"][k]], mean_of(rows, expected, there), atol=1e-5
                )


def test_logarithms_of_styles():
    vectors = small_world.bank()
    vectors.style[np.flatnonzero(vectors.has_image)[0], 1] = 0
    plain = build(vectors=vectors, standardise=False).context
    found = build(vectors=vectors, standardise=False, log_style=True).context
    expected = np.where(vectors.has_image[:, None], np.log(np.maximum(vectors.style, 1e-6)), 0)
    np.testing.assert_allclose(found["style"], expected, rtol=1e-6)
    for name, array in plain.items():
        assert (found[name] != array).any() == name.endswith("style")
    zeroed = build(vectors=vectors, log_style=True, zero=("style",)).context
    assert not zeroed["style"].any()


def test_standardising_reads_no_log():
    data = small_world.dataset()
    log = data.interactions
    flipped = with_log(data, dataclasses.replace(log, label=1 - log.label))
    other = with_log(data, small_world.dataset(9).interactions)
    one = build(data, standardise=True)
    for dataset in (flipped, other):
        two = build(dataset, standardise=True)
        for name in WIDTHS:
            np.testing.assert_array_equal(one.context[name], two.context[name])


def test_a_channel_without_variation_is_not_blown_up():
    vectors = small_world.bank()
    vectors.style[vectors.has_image, 2] = 7.0
    vectors.style[vectors.has_image, 3] = 7.0 + 1e-7 * np.arange(vectors.has_image.sum())
    context = build(vectors=vectors).context
    assert np.abs(context["style"][:, 2:]).max() < 1e-5
    assert np.isfinite(context["style"]).all()


def test_zeroing_one_vector_leaves_the_others():
    whole, without = build(), build(zero=("style",))
    for name, array in whole.context.items():
        if name.endswith("style"):
            assert array.any()
            assert not without.context[name].any()
            assert without.context[name].shape == array.shape
        else:
            np.testing.assert_array_equal(without.context[name], array)
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(without.columns[name], column)
    nothing = build(zero=("content", "style", "text")).context
    assert not any(nothing[f.column].any() for f in whole.schema.dense())


def test_vectors_in_half_the_memory():
    full, half = build(), build(vector_dtype="bfloat16")
    for field in full.schema.dense():
        found = half.context[field.column]
        assert found.dtype.itemsize == 2
        np.testing.assert_allclose(
            found.astype(np.float32), full.context[field.column], rtol=1e-2, atol=1e-2
        )


def test_vectors_in_a_quarter_of_the_memory():
    full, quarter = build(), build(vector_dtype="int8")
    for field in full.schema.dense():
        found, scale = quarter.context[field.column], quarter.context[f"{field.column}_scale"]
        expected = full.context[field.column]
        assert found.dtype == np.int8
        # Half a step of a vector's own scale, no more; nothing where there is no vector.
        worst = np.abs(found * scale[:, None] - expected).max(axis=1)
        assert (worst <= 0.501 * scale).all()
        assert (scale == 0).any()
        assert np.abs(found).max() == 127
        np.testing.assert_array_equal(scale == 0, ~expected.any(axis=1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_vectors_in_files_are_those_in_memory(tmp_path, dtype, monkeypatch):
    there = build(vector_dtype=dtype)
    found = build(vector_dtype=dtype, vectors_on="host", folder=tmp_path)
    dense = {f.column for f in there.schema.dense()}
    assert {name.removesuffix("_scale") for name in found.lookups} == dense
    assert {*found.context, *found.lookups} == {*there.context}
    for name, (array, by) in found.lookups.items():
        assert isinstance(array, np.memmap)
        assert by == ("state" if "_term_" in name else "item")
        np.testing.assert_array_equal(array, there.context[name], strict=True)
    # What is there is opened, and not made again.
    monkeypatch.setattr(ranking_vectors, "interest_vectors", None)
    again = build(vector_dtype=dtype, vectors_on="host", folder=tmp_path)
    for name, (array, _) in again.lookups.items():
        np.testing.assert_array_equal(array, there.context[name], strict=True)
    monkeypatch.undo()
    other = build(vector_dtype=dtype, vectors_on="host", folder=tmp_path, standardise=False)
    assert (other.lookups["content"][0] != there.context["content"]).any()
    assert len(list(tmp_path.iterdir())) == 2


def test_widths_are_those_of_the_bank():
    built = build()
    assert {f.column: f.width for f in built.schema.dense()} == {
        window + name: width
        for name, width in WIDTHS.items()
        for window in ("", "long_term_", "short_term_")
    }
    for field in built.schema.dense():
        assert built.context[field.column].shape[1] == field.width
    assert len(built.context["item_rows"]) == len(built.context["present"]) == ITEMS + 1
    assert len(built.context["user_rows"]) == USERS + 1
    for name in ("item_rows", "user_rows", "present", *WIDTHS):
        assert not built.context[name][0].any()  # the unknown


def test_parts_are_those_of_the_split():
    for kind in splits.KINDS:
        data = small_world.dataset()
        built = build(data, split=kind)
        np.testing.assert_array_equal(built.split, split_of(data, kind))
        rows = [built.rows(part) for part in ("train", "valid", "test")]
        assert sorted(np.concatenate(rows).tolist()) == list(range(len(data.interactions)))
        assert all((np.diff(part) > 0).all() for part in rows)
    seeds = [build(split="cold_item", split_seed=seed).split for seed in (0, 0, 1)]
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert (seeds[0] != seeds[2]).any()


@pytest.mark.parametrize(
    "drop",
    [
        ("user_id", "username"),
        tuple(f"{w}_term_interest_tag_{k}" for w in ("long", "short") for k in range(4)),
        ("short_term_interest_tag_1", "long_term_interest_tag_0", "tag_2"),
        ("img_styles", "tag_semantics", "long_term_interest_style"),
        ("total_view", "bookmark_rate", "illust_id"),
    ],
)
def test_any_field_can_be_left_out(drop):
    data = small_world.dataset()
    whole, built = build(data), build(data, schema=dataclasses.replace(SCHEMA, drop=drop))
    names = [f.name for f in built.schema.fields]
    assert names == [f.name for f in whole.schema.fields if f.name not in drop]
    users = built.schema.sparse(Side.USER)
    width = built.context["user_rows"].shape[1] + built.context["state_rows"].shape[1]
    assert width == 2 * len(users)
    assert built.context["item_rows"].shape[1] == 2 * len(built.schema.sparse(Side.ITEM))
    tags = [f for f in users if f.column in (LONG_TAGS, SHORT_TAGS)]
    for k in (20, 40, 60):
        found = built.context["state_rows"][built.columns["state"][k]].reshape(2, -1)
        expected = small_world.table_rows(built.schema, data, built.split, "temporal", k)
        places = [users.index(f) for f in tags]
        np.testing.assert_array_equal(found, expected[:, places])


# What is refused --------------------------------------------------------------------------------


def test_wrong_requests():
    with pytest.raises(ValueError, match=r"got 14 items, expected the data set's 15; extract"):
        build(vectors=small_world.bank(items=ITEMS - 1))
    with pytest.raises(ValueError, match="zero: got 'styles', expected some of content, style"):
        RankingConfig(zero=("styles",))
    with pytest.raises(ValueError, match="vector_dtype: got 'int4', expected one of float32"):
        RankingConfig(vector_dtype="int4")
    with pytest.raises(ValueError, match="vectors_on: got 'disk', expected one of device, host"):
        RankingConfig(vectors_on="disk")
    with pytest.raises(ValueError, match="'host' with a history of 3; expected 'device'"):
        RankingConfig(vectors_on="host", history=3)
    with pytest.raises(ValueError, match="vectors_on: got 'host' and no folder"):
        build(vectors_on="host")
    with pytest.raises(ValueError, match="got the split 'random'"):
        RankingConfig(split="random")
    with pytest.raises(ValueError, match="three positive shares with the sum 1"):
        RankingConfig(fractions=(0.8, 0.1, 0.2))
    data = small_world.dataset()
    single = with_log(data, data.interactions.take(np.arange(1)))
    with pytest.raises(ValueError, match="leaves valid and test empty"):
        build(single, split="cold_user")
    with pytest.raises(ValueError, match="interest_vectors: got 'image'"):
        SchemaConfig(interest_vectors=("image",)).schema()
    with pytest.raises(ValueError, match="did you mean 'illust_id'"):
        SchemaConfig(sizes={"illust_idd": 5}).schema()
