"""Films and ratings become items and bookmarks, on a made-up site of the same form."""

import subprocess
import sys
from datetime import UTC, datetime

import films
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from films import START, film, prepared, rating, site, write
from rich.console import Console

from configs import movielens as config_file
from umair_jax.data import store
from umair_jax.data.report import Report
from umair_jax.data.sources import NAMES, Source, open_source
from umair_jax.data.sources.movielens import MovieLens
from umair_jax.jobs import sections
from umair_jax.jobs.sections import DataConfig


def items_of(folder, **options):
    report = Report()
    return {item.illust_id: item for item in MovieLens(folder, **options).items(report)}, report


def new_year(year):
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp())


# Films ------------------------------------------------------------------------------------------


def test_a_film_becomes_an_item(tmp_path):
    wanted = film(
        7,
        title="Misérables, Les (1995) ",
        genres=["Drama", "War"],
        year=1995,
        plot="A man flees.",
        tags=["war", "prison", "Drama"],
    )
    folder = write(tmp_path, [wanted], [rating(1, 7, START)])
    items, report = items_of(folder)
    item = items["7"]
    assert report.counts == {}
    assert (item.file, item.row) == ("items.parquet", 1)
    assert (item.title, item.artist, item.category) == ("Les Misérables", "Ada Lens", "1990s")
    assert item.description == "A man flees. With Bo Bit, Cy Cut."
    assert item.tags == ("Drama", "War")
    assert item.published == new_year(1995)
    assert item.image == wanted["image"]
    data, _ = prepared(folder, tmp_path / "data", negatives="none")
    assert (data.items.width[1], data.items.height[1]) == (4, 6)
    assert data.image_bytes(1) == wanted["image"]


@pytest.mark.parametrize(
    ("title", "year", "shown"),
    [
        ("Heat (1995)", 1995, "Heat"),
        ("Heat (1995)", 1996, "Heat (1995)"),
        ("Heat (1995)", None, "Heat (1995)"),
        ("Wraith, The (1986)", 1986, "The Wraith"),
        ("Bittersweet Life, A (Dalkomhan insaeng) (2005)", 2005, "A Bittersweet Life (Dalkomhan "
         "insaeng)"),
        ("Good, the Bad, The (Il cattivo) (1966)", 1966, "The Good, the Bad (Il cattivo)"),
        ("Crash, Then Burn (1999)", 1999, "Crash, Then Burn"),
        ("(2001)", 2001, "(2001)"),
        ("2012 (2009)", 2009, "2012"),
    ],
)  # fmt: skip
def test_titles(tmp_path, title, year, shown):
    folder = write(tmp_path, [film(1, title=title, year=year)], [rating(1, 1, START)])
    assert items_of(folder)[0]["1"].title == shown


def test_what_a_film_lacks(tmp_path):
    bare = film(1, genres=["(no genres listed)"], year=None, director="", actors="", plot="",
                image=None)  # fmt: skip
    null = dict.fromkeys(film(1)) | {"movie_id": 2, "title": "Nothing known"}
    silent = film(3, plot="", image=b"")
    unseen = film(4, actors=None)
    folder = write(tmp_path, [bare, null, silent, unseen], [rating(1, 1, START)])
    items, report = items_of(folder)
    for item in (items["1"], items["2"]):
        assert (item.artist, item.description, item.category, item.tags) == ("", "", "", ())
        assert (item.image, item.published, item.width) == (None, -1, -1)
    assert items["3"].description == "With Bo Bit, Cy Cut."
    assert items["4"].description == "Plot 4."
    assert items["4"].published == new_year(1990)  # without any rating
    assert report.counts == {"no_image": 3}
    assert [e.row for e in report.examples["no_image"]] == [1, 2, 3]
    data, report = prepared(folder, tmp_path / "data", negatives="none")
    assert report.counts == {"no_image": 3, "empty_tags": 2}
    assert [data.image_bytes(row) == b"" for row in range(1, 5)] == [True, True, True, False]


def test_only_ids_and_titles_are_needed(tmp_path):
    schema = pa.schema([("movie_id", pa.string()), ("title", pa.string())])
    log = pa.schema([("user_id", pa.string()), ("movie_id", pa.string()),
                     ("timestamp", pa.timestamp("us"))])  # fmt: skip
    rows = [{"movie_id": "a", "title": "A Film"}]
    moment = datetime(2001, 9, 9, 1, 46, 40)
    ratings = [{"user_id": "u", "movie_id": "a", "timestamp": moment}]
    folder = write(tmp_path, rows, ratings, (schema, log))
    data, report = prepared(folder, tmp_path / "data", negatives="none")
    assert report.counts == {"no_image": 1, "empty_tags": 1}
    assert data.items.title == ("", "A Film")
    assert data.interactions.timestamp.tolist() == [START]


def test_bad_films_are_counted_with_file_and_row(tmp_path):
    schema = films.ITEMS.set(3, pa.field("year", pa.string()))
    schema = schema.set(0, pa.field("movie_id", pa.string()))
    schema = schema.append(pa.field("studio", pa.string()))
    years = ["1990", "then", "1700", "-5", "20001", "1990.0", ""]
    rows = [film(str(k), year=year, studio="x") for k, year in enumerate(years, 1)]
    rows[0]["image"] = b"no picture at all"
    rows += [film("1", year="1990"), film(None, year="never")]
    folder = write(tmp_path, rows, [rating(1, 1, START)], (schema, films.RATINGS))
    with pytest.raises(ValueError, match=r"items.parquet: got 7 bad rows of 9"):
        prepared(folder, tmp_path / "data")
    data, report = prepared(folder, tmp_path / "data", max_bad_share=0.8, negatives="none")
    assert report.counts == {
        "bad_year": 5, "unknown_column": 1, "broken_image": 1, "duplicate_item": 1, "missing_id": 1,
    }  # fmt: skip
    where = {kind: [(e.file, e.row) for e in found] for kind, found in report.examples.items()}
    assert where["bad_year"] == [("items.parquet", row) for row in (2, 3, 4, 5, 9)]
    assert where["broken_image"] == [("items.parquet", 1)]
    assert where["duplicate_item"] == [("items.parquet", 8)]
    assert data.items.category[1:] == ("1990s", "", "", "", "", "1990s", "")
    assert data.items.published[2] == -1


def test_users_words_are_left_out_unless_asked_for(tmp_path):
    rows = [film(1, genres=["Sci-Fi"], tags=["sci-fi", "robots", "saw it twice"])]
    folder = write(tmp_path, rows, [rating(1, 1, START)])
    assert items_of(folder)[0]["1"].tags == ("Sci-Fi",)
    asked, _ = items_of(folder, untimed_tags=True)
    assert asked["1"].tags == ("Sci-Fi", "robots", "saw it twice")
    assert isinstance(open_source("movielens", folder, untimed_tags=True), MovieLens)
    requests = [MovieLens(folder, untimed_tags=asked).request() for asked in (False, True)]
    assert requests[0] != requests[1]
    assert DataConfig().untimed_tags is False
    for name in set(NAMES) - {"movielens"}:
        with pytest.raises(ValueError, match=rf"got untimed_tags for the source {name}; expected"):
            open_source(name, untimed_tags=True)


# When a film came out ---------------------------------------------------------------------------


def test_no_film_is_published_after_its_first_rating(tmp_path):
    early = new_year(2005) - 50
    rows = [film(1, year=2005), film(2, year=2005), film(3, year=1969), film(4, year=None),
            film(5, year=2005)]  # fmt: skip
    log = [rating(1, 1, early + 9), rating(2, 1, early), rating(1, 2, new_year(2005)),
           rating(1, 3, early), rating(1, 4, early), rating(None, 5, early)]  # fmt: skip
    items, report = items_of(write(tmp_path, rows, log))
    found = [items[str(k)].published for k in range(1, 6)]
    assert found == [early, new_year(2005), new_year(1969), -1, new_year(2005)]
    assert found[2] < -1
    # Film 5 was rated by nobody who is known. Its row of the log is counted when that is read.
    assert report.counts == {"rated_before": 1}
    assert report.examples["rated_before"][0].row == 1


def test_whether_a_film_is_out_follows_from_the_past_alone(tmp_path):
    """A rating at or after a second changes nothing about who is published before it."""
    rows, log = site()
    rng = np.random.default_rng(3)
    before, _ = items_of(write(tmp_path, rows, log))
    for now in sorted({row["timestamp"] for row in log})[::8]:
        kept = [row for row in log if row["timestamp"] < now]
        added = [rating(1, int(rng.integers(1, 31)), now + int(rng.integers(0, 9)))
                 for _ in range(20)]  # fmt: skip
        after, _ = items_of(write(tmp_path, rows, kept + added))
        for movie in before:
            for second in (now - 1, now - 10_000_000):
                out = [found[movie].published <= second for found in (before, after)]
                assert out[0] == out[1]


# Ratings ----------------------------------------------------------------------------------------


def test_every_rating_is_a_bookmark_whatever_its_stars(tmp_path):
    stars = (0.5, 3.0, 5.0, None, float("nan"))
    log = [rating(1, k, START + k, star) for k, star in enumerate(stars, 1)]
    folder = write(tmp_path, [film(k) for k in range(1, 6)], log)
    data, report = prepared(folder, tmp_path / "data", negatives="none")
    assert data.interactions.label.tolist() == [1] * 5
    assert report.counts == {}


def test_bad_ratings_are_counted_with_file_and_row(tmp_path):
    schema = films.RATINGS.set(3, pa.field("timestamp", pa.string()))
    seconds = [START, START, START, START + 9, "soon", START * 1000, "", -3, START]
    log = [rating(1, 1, str(second)) for second in seconds]
    log[1]["rating"] = 2.0  # repeated, with other stars
    log[2]["movie_id"] = 99
    log[8]["user_id"] = None
    folder = write(tmp_path, [film(1)], log, (films.ITEMS, schema))
    with pytest.raises(ValueError, match=r"ratings.parquet: got 6 bad rows of 9"):
        prepared(folder, tmp_path / "data")
    data, report = prepared(folder, tmp_path / "data", max_bad_share=1.0, negatives="none")
    counts = {"unknown_item": 1, "bad_timestamp": 4, "missing_id": 1, "duplicate_interaction": 1}
    assert report.counts == counts
    assert report.rows == {"items.parquet": 1, "ratings.parquet": 9}  # each is read once
    rows = {kind: [e.row for e in found] for kind, found in report.examples.items()}
    assert rows == {"unknown_item": [3], "bad_timestamp": [5, 6, 7, 8], "missing_id": [9],
                    "duplicate_interaction": [2]}  # fmt: skip
    assert all(e.file == "ratings.parquet" for e in report.examples["unknown_item"])
    assert data.interactions.timestamp.tolist() == [START, START + 9]


# Folders, flags, config ----------------------------------------------------------------------


def test_what_is_no_folder_of_films(tmp_path):
    assert isinstance(MovieLens(write(tmp_path / "films", *site())), Source)
    for options in ({}, {"path": ""}):
        with pytest.raises(ValueError, match="got no path; expected the folder with items and rat"):
            open_source("movielens", **options)
    with pytest.raises(ValueError, match="got the limit 3; the source movielens is read whole"):
        open_source("movielens", tmp_path, limit=3)
    with pytest.raises(ValueError, match="absent: got nothing; expected a folder with items and r"):
        MovieLens(tmp_path / "absent")
    (tmp_path / "films/ratings.parquet").rename(tmp_path / "films/log.parquet")
    with pytest.raises(ValueError, match=r"expected one of ratings.parquet, ratings.csv"):
        MovieLens(tmp_path / "films")
    wrong = write(tmp_path / "wrong", *site(), (films.ITEMS, films.RATINGS))
    pq.write_table(pa.table({"movieId": [1], "title": ["x"]}), wrong / "items.parquet")
    with pytest.raises(ValueError, match="expected 'movie_id' too; rename 'movieId'"):
        items_of(wrong)


def test_a_config_keeps_both_kinds_of_tags_apart(tmp_path):
    folder = write(tmp_path / "films", [film(1)], [rating(1, 1, START)])
    wanted = {"movielens-films-seed0": ("Drama",), "movielens-films-untimed_tags-seed0": ("Drama",
              "slow")}  # fmt: skip
    for untimed, (name, tags) in enumerate(wanted.items()):
        data_config = DataConfig(
            source="movielens", path=str(folder), root=str(tmp_path / "data"),
            untimed_tags=bool(untimed), negatives="none",
        )  # fmt: skip
        assert sections.prepared(data_config, Console(quiet=True)).items.tags[1] == tags
        assert (tmp_path / "data" / name).is_dir()


@pytest.mark.slow
def test_the_front_door(tmp_path):
    folder = write(tmp_path / "films", *site())
    command = [sys.executable, "-m", "umair_jax.prepare", "--source=movielens", f"--path={folder}"]
    told = subprocess.run(
        [*command, f"--data_dir={tmp_path / 'data'}", "--untimed_tags"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "movielens: 30 items" in told.stdout
    assert "slow" in store.load(tmp_path / "data").items.tags[1]
    command[3] = "--source=openclipart"
    told = subprocess.run([*command[:4], f"--data_dir={tmp_path / 'no'}", "--untimed_tags"],
                          capture_output=True, text=True)  # fmt: skip
    assert told.returncode == 2
    assert "got untimed_tags for the source openclipart" in told.stderr


def test_the_config_holds_out_every_fifth_film():
    config = config_file.get_config()
    assert config == config_file.get_config("cold_item")
    assert (config.features.split, config.features.fractions[2]) == ("cold_item", 0.2)
    assert config.data.source == "movielens"
    assert config.data.negatives == "auto"
    for kind in ("temporal", "cold_user"):
        other = config_file.get_config(kind)
        assert other.features.split == kind
        assert other.extract == config.extract  # one bank for all
