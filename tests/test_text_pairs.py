"""The corpus of pairs: reading, filtering, and holding out by concept."""

import dataclasses
import json

import numpy as np
import pytest
import small_world

from umair_jax.data import pair_split, text_pairs
from umair_jax.data.report import PAIR_KINDS, Report
from umair_jax.data.text_pairs import CATALOGUE, PERSPECTIVES, PairsConfig

HALVES = (0.5, 0.25, 0.25)


@pytest.fixture(scope="module")
def corpus():
    return pair_split.build(None, PairsConfig(catalogue=()))


def written(folder, lines, name="pairs.jsonl"):
    path = folder / name
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", "utf-8")
    return PairsConfig(path=str(path), catalogue=(), max_bad_share=1.0)


def line(a, b, perspective="relation", **more):
    return {"perspective": perspective, "text_a": a, "text_b": b, **more}


def test_the_corpus_in_the_package_has_all_it_says(corpus):
    among = np.bincount(corpus.perspective)
    assert among.tolist() == [38_492, 79_121, 44_999]
    assert len(corpus.perspective) + sum(corpus.report.counts.values()) == 163_408
    assert len(corpus.languages) == 13
    assert corpus.report.bad_shares() == {"text_pairs.parquet": 0.0}


def test_no_held_out_text_is_in_any_training_pair(corpus):
    texts = {part: set(map(text_pairs.key, corpus.texts_of(part))) for part in corpus.parts}
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["valid"]
    assert not texts["valid"] & texts["test"]


def test_every_pair_is_in_one_part_or_a_bridge(corpus):
    rows = np.concatenate(list(corpus.parts.values()))
    assert len(np.unique(rows)) == len(rows)
    assert len(rows) + corpus.bridges == len(corpus.perspective)
    for part in ("valid", "test"):
        kinds = np.bincount(corpus.perspective[corpus.parts[part]], minlength=3)
        assert kinds.min() > 1000


def test_other_pairs_move_no_concept(tmp_path):
    lines = [line(f"one {i}", f"other {i}") for i in range(300)]
    some = pair_split.build(None, written(tmp_path, lines))
    more = pair_split.build(None, written(tmp_path, [line("new", "pair"), *lines]))
    for part in ("valid", "test"):
        assert set(some.texts_of(part)) <= set(more.texts_of(part))


def test_the_catalogue_has_no_say_in_what_is_held_out(tmp_path):
    items = small_world.dataset().items
    titles = [title for title in items.title if title]
    lines = [line(title, f"about {title}") for title in titles]
    lines += [line(f"one {i}", f"other {i}") for i in range(300)]
    config = dataclasses.replace(written(tmp_path, lines), catalogue=CATALOGUE, fractions=HALVES)
    some, more = pair_split.build(None, config), pair_split.build(items, config)
    assert len(more.perspective) > len(some.perspective)
    assert more.bridges > some.bridges  # titles that are held out: their catalogue pairs go
    for part in ("valid", "test"):
        assert sorted(some.texts_of(part)) == sorted(more.texts_of(part))
        assert len(some.parts[part]) == len(more.parts[part])


def test_a_catalogue_alone_is_split():
    pairs = pair_split.build(small_world.dataset().items, PairsConfig(path="", fractions=HALVES))
    assert min(map(len, pairs.parts.values())) > 0


def test_what_cannot_be_used_is_counted(tmp_path):
    lines = [
        line("cat", "animal"),
        line("CAT ", "Animal"),
        line("dog", "Ｄｏｇ"),
        line("", "nothing"),
        line("bird", "x" * 301),
        line("Category:Birds", "bird"),
        line("sun", "star", "opinion"),
        line("sun", "star"),
    ]
    report = Report()
    found = list(text_pairs.read(None, written(tmp_path, lines), report))
    assert [(pair.a, pair.b) for pair in found] == [("cat", "animal"), ("sun", "star")]
    assert report.counts == dict.fromkeys(PAIR_KINDS, 1)
    assert report.examples["unknown_perspective"][0].row == 7


@pytest.mark.parametrize(
    "title",
    ["Template:Infobox", "分类:动物", "Mercury (disambiguation)", "List of cats", "消歧义"],
)
def test_pages_about_the_wiki_are_left_out(tmp_path, title):
    report = Report()
    assert not list(text_pairs.read(None, written(tmp_path, [line(title, "text")]), report))
    assert report.counts == {"housekeeping": 1}


@pytest.mark.parametrize("title", ["Re:Zero", "Profile: a portrait", "cat", "list"])
def test_titles_that_look_like_it_stay(tmp_path, title):
    found = list(text_pairs.read(None, written(tmp_path, [line(title, "text")]), Report()))
    assert [pair.a for pair in found] == [title]


def test_negatives_and_languages_come_along(tmp_path):
    lines = [line(f"a{i}", f"b{i}", lang_a="zh-Hans", lang_b="", negative="c") for i in range(100)]
    made = pair_split.build(None, written(tmp_path, lines))
    assert made.languages == ("und", "zh")
    rows = made.parts["train"]
    assert {made.texts[i] for i in made.negative[rows]} == {"c"}


def test_a_bad_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.csv"):
        pair_split.build(None, PairsConfig(path=str(tmp_path / "absent.csv"), catalogue=()))
    config = written(tmp_path, [line("a", "b", "wrong")] * 3 + [line("a", "b")])
    with pytest.raises(ValueError, match="3 bad rows of 4"):
        pair_split.build(None, PairsConfig(path=config.path, catalogue=()))
    with pytest.raises(ValueError, match="leave valid and test empty"):
        pair_split.build(None, written(tmp_path, [line("a", "b")]))


def test_the_catalogue_gives_pairs_of_its_own():
    items = small_world.dataset().items
    config = PairsConfig(path="", catalogue_pairs=5)
    found = list(text_pairs.read(items, config, Report()))
    titles = dict(zip(items.title, items.tags, strict=True))
    kinds = {name: [p for p in found if p.perspective == name] for name in PERSPECTIVES}
    assert not kinds["multilingual"]
    assert 0 < len(kinds["explanation"]) <= 5
    assert 0 < len(kinds["relation"]) <= 10
    for pair in kinds["explanation"]:
        assert any(
            pair.a == title and pair.b == " ".join(tags)
            for title, tags in zip(items.title, items.tags, strict=True)
        )
    assert titles  # the made-up site has titles to make pairs of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"catalogue": ("tags",)}, "catalogue"),
        ({"catalogue": (), "path": ""}, "only with a path"),
        ({"fractions": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"mix": {"relation": 1.0}}, "for each of"),
        ({"mix": dict.fromkeys(PERSPECTIVES, 0.0)}, "above 0"),
        ({"max_mentions": 0}, "max_mentions"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PairsConfig(**options)
