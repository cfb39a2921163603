"""What docs/data.md says about columns, kinds, splits, files and fields is what the code does."""

import re
from pathlib import Path

import pytest
from folders import write
from rich.console import Console

from umair_jax.data import records, splits, store
from umair_jax.data.images import PIXEL_LIMIT
from umair_jax.data.negatives import STRATEGIES
from umair_jax.data.report import KINDS
from umair_jax.data.schema import Schema
from umair_jax.data.sources import folder, movielens, open_source, pictures
from umair_jax.prepare import prepare

TEXT = (Path(__file__).parent.parent / "docs/data.md").read_text("utf-8")


def section(title):
    return re.split(r"^##+ ", TEXT.partition(f"# {title}\n")[2], flags=re.MULTILINE)[0]


def names(text):
    return [n for row in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
            for n in re.findall(r"`(\w+)`", row)]  # fmt: skip


def test_columns():
    for title, wanted in (
        ("Items", folder._ITEMS),
        ("Interactions", folder._INTERACTIONS),
        ("Films", movielens._ITEMS),
        ("Ratings", movielens._RATINGS),
    ):
        text = section(title)
        assert sorted(names(text)) == sorted(wanted.names)
        required = [row for row in text.splitlines() if "| yes |" in row]
        assert [names(row)[0] for row in required] == list(wanted.required)
    assert all(suffix in section("Items") for suffix in pictures.SUFFIXES)
    assert f"{movielens.FIRST_YEAR} to {movielens.LAST_YEAR}" in section("Films")


def test_kinds():
    rows = [
        f"| `{name}` | {kind.what} | {kind.done} | {bad} | {kind.advice} |"
        for name, kind in KINDS.items()
        for bad in ["yes" if kind.bad else "note"]
    ]
    assert re.findall(r"^\| `.*\|$", section("The report"), re.MULTILINE) == rows


def test_fields():
    rows = []
    for field in Schema.paper().fields:
        size = f"{field.size:,}" if field.size else f"{field.width:,} wide"
        table = f"`{field.table}`" if field.table else "none"
        cells = (f"`{field.name}`", field.kind.value, table, size, field.side.value)
        rows.append(f"| {' | '.join(cells)} |")
    text = section("Fields")
    assert re.findall(r"^\| `.*\|$", text, re.MULTILINE) == rows
    for field in Schema.paper().fields:
        assert ", ".join(f"{edge:,}" for edge in field.boundaries) in " ".join(text.split())


def test_splits_strategies_limits_and_files():
    assert tuple(names(section("Splits"))) == splits.KINDS
    assert tuple(names(section("Negatives"))) == STRATEGIES
    assert f"| {PIXEL_LIMIT:,} |" in TEXT
    assert f"{records.CHUNK:,}" in section("On disk")


@pytest.mark.filterwarnings("error")
def test_the_examples_are_read_as_they_stand(tmp_path):
    files = {}
    for title, name in (("Items", "items.csv"), ("Interactions", "interactions.csv")):
        lines = [line[4:] for line in section(title).splitlines() if line.startswith("    ")]
        assert len(lines) == 3
        files[name] = "\n".join(lines)
    report = prepare(open_source("folder", write(tmp_path / "mine", files)), tmp_path / "data",
                     console=Console(quiet=True))  # fmt: skip
    assert report.counts == {"no_image": 2}
    data = store.load(tmp_path / "data")
    assert data.items.title == ("", "Harbour at dusk", "Fox, sleeping")
    assert data.interactions.label.tolist() == [1, 0]
    listed = re.findall(r"^    DATA/(\S+)", section("On disk"), re.MULTILINE)
    assert all((tmp_path / "data" / name).exists() for name in listed)
    there = {path.name for path in (tmp_path / "data").iterdir()}
    assert there == {name.partition("/")[0] for name in listed}


def test_the_recipe_reads_the_files_of_grouplens(tmp_path, monkeypatch):
    place = tmp_path / "ml-latest-small"
    write(place, {
        "movies.csv": "movieId,title,genres\n"
        "1,Toy Tale (1995),Adventure|Animation\n"
        '2,"Wraith, The (1986) ",Horror\n'
        "3,Babylon,(no genres listed)\n",
        "ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,1000000000\n1,2,0.5,1000000001\n",
    })  # fmt: skip
    text = section("From the files of GroupLens")
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    monkeypatch.chdir(tmp_path)
    exec("\n".join(lines), {})
    report = prepare(open_source("movielens", "FILMS"), tmp_path / "data", negatives="none",
                     console=Console(quiet=True))  # fmt: skip
    assert report.counts == {"no_image": 3, "empty_tags": 1}
    data = store.load(tmp_path / "data")
    assert data.items.title == ("", "Toy Tale", "The Wraith", "Babylon")
    assert data.items.tags == ((), ("Adventure", "Animation"), ("Horror",), ())
    assert data.items.category == ("", "1990s", "1980s", "")
    assert data.interactions.item.tolist() == [1, 2]
