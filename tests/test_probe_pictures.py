"""Labelled pictures as they are read, sampled and moved; baselines without a network."""

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapes
from PIL import Image

from umair_jax.data.images import load_square
from umair_jax.probes import pictures
from umair_jax.probes.baselines import baselines, colour_histogram
from umair_jax.probes.pictures import (
    Move,
    draw_moves,
    move_pictures,
    moved,
    read_artists,
    read_styles,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return shapes.write(tmp_path_factory.mktemp("shapes") / "shapes.parquet")


def white(side=32):
    return np.full((side, side, 3), 255, np.uint8)


# Reading ----------------------------------------------------------------------------------------


def test_every_picture_has_its_labels(path):
    found = read_styles(path)
    assert len(found) == 36
    assert list(found.names["style"]) == ["flat", "glow", "line"]
    for row in range(36):
        concept = int(found.names["concept"][found.labels["concept"][row]].removeprefix("shape-"))
        style = found.names["style"][found.labels["style"][row]]
        assert found.image_bytes(row) == shapes.drawing(concept, style)
        assert found.titles[row] == f"shape number {concept}"


def test_group_and_name_may_be_missing(tmp_path):
    found = read_styles(shapes.write(tmp_path / "few", group=None, name_en=None))
    assert set(found.labels["group"]) == {0}
    assert found.titles[0] == "shape-00"


def test_columns_of_other_types_with_the_same_meaning(tmp_path):
    whole = shapes.columns()
    numbers = pa.array([int(name[-2:]) for name in whole["concept"]])
    found = read_styles(
        shapes.write(
            tmp_path / "a", concept=numbers, style=pa.array(whole["style"]).dictionary_encode()
        )
    )
    assert len(found.names["concept"]) == 12
    assert list(found.names["style"]) == ["flat", "glow", "line"]


def test_rows_without_labels_are_counted(tmp_path):
    concept = shapes.columns()["concept"]
    concept[3], concept[20] = None, ""
    found = read_styles(shapes.write(tmp_path / "a", concept=concept))
    assert len(found) == 34
    assert found.dropped == {"without concept or style": 2}


def test_a_limit_keeps_whole_concepts(path):
    found = read_styles(path, limit=4, seed=1)
    kept = np.unique(found.labels["concept"])
    assert len(kept) == 4
    assert len(found) == 12
    again, other = (read_styles(path, limit=4, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(again.labels["concept"], found.labels["concept"])
    assert set(other.labels["concept"]) != set(kept)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"style": None}, r"lacks style; got concept, group, name_en, image; expected a parquet"),
        ({"style": None, "image": None}, r"lacks style, image;.*image \(an encoded picture\)"),
        ({"style": ["flat"] * 36}, "has one style, 'flat'; expected two or more"),
        ({"concept": ["a"] * 36}, "has one concept, 'a'; expected two or more"),
        ({"image": [[1]] * 36}, "has image as list"),
        ({"style": [None] * 36}, "no pictures with a concept and a style"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(changes, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        read_styles(shapes.write(tmp_path / "a.parquet", **changes))


def test_a_file_that_is_no_parquet(tmp_path):
    with pytest.raises(ValueError, match="which is no file; expected a parquet file with concept"):
        read_styles(tmp_path / "nothing")
    (tmp_path / "text").write_text("concept,style\n")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        read_styles(tmp_path / "text")


def test_an_empty_file_is_an_error(tmp_path):
    table = pa.table(shapes.columns()).slice(0, 0)
    pq.write_table(table, tmp_path / "a")
    with pytest.raises(ValueError, match="no pictures"):
        read_styles(tmp_path / "a")


def test_artists_have_ten_drawings():
    found = read_artists()
    count = np.bincount(found.labels["artist"], minlength=len(found.names["artist"]))
    assert count[count > 0].min() >= 10
    assert len(found) == count.sum() > 1_000
    assert all(load_square(found.image_bytes(row), 8).shape == (8, 8, 3) for row in (0, 99))
    few = read_artists(limit=3)
    assert len(np.unique(few.labels["artist"])) == 3
    (question,) = few.questions()
    assert len(set(question.group)) == len(few)


# Sampling ---------------------------------------------------------------------------------------


def test_queries_are_a_fair_share_of_each_style(path):
    found = read_styles(path)
    assert found.sample(0, 0).tolist() == found.sample(99, 0).tolist() == list(range(36))
    rows = found.sample(12, 0)
    assert len(set(rows)) == 12
    assert np.bincount(found.labels["style"][rows]).tolist() == [4, 4, 4]
    assert found.sample(12, 0).tolist() == rows.tolist() != found.sample(12, 1).tolist()


def test_what_is_kept_keeps_its_labels(path):
    found = read_styles(path)
    rows = np.array([30, 2])
    kept = found.keep(rows, broken=3, other=0)
    assert kept.dropped == {"broken": 3}
    assert [kept.image_bytes(0), kept.image_bytes(1)] == [found.images[30], found.images[2]]
    for name, codes in found.labels.items():
        assert kept.labels[name].tolist() == codes[rows].tolist()


# Moving -----------------------------------------------------------------------------------------


def spot(left, top, width=6, height=4, side=32):
    """A red box on white."""
    square = white(side)
    square[top : top + height, left : left + width] = (255, 0, 0)
    return square


def after(square, *move):
    return np.asarray(moved(Image.fromarray(square), Move(*move))).astype(int)


def test_a_move_by_nothing_changes_nothing(path):
    square = load_square(read_styles(path).image_bytes(5), 64)
    np.testing.assert_array_equal(after(square), square)


def test_moves_by_whole_pixels_and_quarter_turns_are_exact():
    np.testing.assert_array_equal(after(spot(10, 12), (4 / 32, -2 / 32)), spot(14, 10))
    np.testing.assert_array_equal(after(spot(2, 12), (-8 / 32, 0.0)), white())
    turned = after(spot(10, 3), (0.0, 0.0), 1.0, 90.0)  # clockwise: the top is at the right now
    np.testing.assert_allclose(turned, np.rot90(spot(10, 3), -1), atol=1)
    shifted = after(spot(10, 3), (-4 / 32, 0.0), 1.0, 90.0)
    np.testing.assert_allclose(shifted, np.roll(turned, -4, axis=1), atol=1)


def test_scaling_is_about_the_centre():
    red = after(spot(8, 8, 16, 16), (0.0, 0.0), 0.5)[..., 1] < 128
    rows, columns = np.nonzero(red)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 19, 12, 19)


def test_moves_are_drawn_within_their_limits():
    moves = draw_moves(2000, 0)
    assert moves == draw_moves(2000, 0)
    assert not set(moves) & set(draw_moves(2000, 1))
    ranges = {
        (-pictures.SHIFT, pictures.SHIFT): [x for move in moves for x in move.shift],
        pictures.SCALE: [move.scale for move in moves],
        (-pictures.TURN, pictures.TURN): [move.turn for move in moves],
    }
    for (low, high), drawn in ranges.items():
        assert low <= min(drawn) < low + 0.01 * (high - low)
        assert high >= max(drawn) > high - 0.01 * (high - low)
        assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.1
    assert all(f"{limit:g}" in pictures.MOVES for limit in (12, 0.75, 1.1, 20))


def test_moved_pictures_keep_their_labels_and_broken_ones_stay_broken(path):
    found = read_styles(path).keep(np.array([17, 4, 9]))
    wide = io.BytesIO()
    Image.new("RGB", (2000, 500), "red").save(wide, "png")
    found = dataclasses.replace(found, images=[found.images[0], wide.getvalue(), b"broken"])
    moves = draw_moves(3, 5)
    with ThreadPoolExecutor(2) as pool:
        there = move_pictures(found, moves, pool)
    assert there.labels == found.labels
    assert there.images[2] == b"broken"
    sizes = [Image.open(io.BytesIO(data)).size for data in there.images[:2]]
    assert sizes == [(shapes.SIDE,) * 2, (pictures.LARGEST_SIDE,) * 2]
    expected = moved(Image.fromarray(load_square(found.images[0], shapes.SIDE)), moves[0])
    np.testing.assert_array_equal(load_square(there.images[0], shapes.SIDE), np.asarray(expected))


# Baselines --------------------------------------------------------------------------------------


def test_the_histogram_is_of_colours_alone():
    square = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    shuffled = np.random.default_rng(1).permutation(square.reshape(-1, 3)).reshape(square.shape)
    np.testing.assert_array_equal(colour_histogram(square), colour_histogram(shuffled))
    expected, _ = np.histogramdd(square.reshape(-1, 3), bins=(8, 8, 8), range=[(0, 256)] * 3)
    np.testing.assert_allclose(colour_histogram(square) ** 2, expected.reshape(-1) / 400, atol=1e-6)
    assert not colour_histogram(white())[:-1].any()


def test_baselines_follow_the_pictures(path):
    found = read_styles(path)
    found = dataclasses.replace(found, images=[*found.images[:2], b"broken"])
    with ThreadPoolExecutor(2) as pool:
        measured = baselines(found, 3, pool, 10**7)
    square = load_square(found.image_bytes(1), 128)
    np.testing.assert_array_equal(measured["colour_histogram"][1], colour_histogram(square))
    small = load_square(found.image_bytes(1), 16).reshape(-1) / np.float32(255)
    np.testing.assert_allclose(measured["pixels"][1], small, rtol=1e-6)
    assert not measured["pixels"][2].any()
    assert not measured["colour_histogram"][2].any()
