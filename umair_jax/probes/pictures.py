"""Pictures with labels to ask about, and the same pictures moved."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int
from PIL import Image

from umair_jax.data import images as image_files
from umair_jax.data.sources import openclipart
from umair_jax.probes.neighbours import NEAREST, Question

REQUIRED = {"concept": "what is drawn", "style": "how it is drawn", "image": "an encoded picture"}
OPTIONAL = {"group": "kind of concept, for the figure", "name_en": "the concept in words, likewise"}
LEAST_DRAWINGS = 10  # of an artist
LARGEST_SIDE = 512  # of a moved picture
SHIFT, SCALE, TURN = 0.12, (0.75, 1.1), 20.0
MOVES = (
    f"shifted by up to {100 * SHIFT:.0f} % of the side each way, scaled by {SCALE[0]} to "
    f"{SCALE[1]} and rotated by up to {TURN:.0f} degrees, at random, on white"
)
STYLES, ARTISTS = "styles", "artists"


@dataclasses.dataclass(frozen=True)
class LabelledPictures:
    """Pictures and what is known about each.

    Attributes:
        kind: "styles" (concepts, each in several styles) or "artists" (drawings with their artist).
        images: Encoded pictures.
        titles: What each shows, in words.
        labels: Codes [N] by name: "concept", "style" and "group", or "artist".
        names: What the codes stand for, by the same names.
        dropped: Rows of the source that could not be used, by reason.
    """

    kind: str
    images: Sequence[bytes | None]
    titles: Sequence[str]
    labels: Mapping[str, Int[np.ndarray, " N"]]
    names: Mapping[str, Sequence[str]]
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.images)

    def image_bytes(self, row: int) -> bytes | None:
        """The encoded picture."""
        return self.images[row]

    def keep(self, rows: Int[np.ndarray, " K"], **dropped: int) -> LabelledPictures:
        """Only some of them, in this order; the others are counted by reason."""
        return dataclasses.replace(
            self,
            images=[self.images[row] for row in rows],
            titles=[self.titles[row] for row in rows],
            labels={name: codes[rows] for name, codes in self.labels.items()},
            dropped={**self.dropped, **{why: count for why, count in dropped.items() if count}},
        )

    def questions(self) -> tuple[Question, ...]:
        """What is asked about the neighbours, style before content."""
        if self.kind == ARTISTS:
            artist, alone = self.labels["artist"], np.arange(len(self))
            name = f"same_artist_precision_at_{NEAREST}"
            return (Question(name, artist, alone, artist, "share"),)
        style, concept = self.labels["style"], self.labels["concept"]
        return (
            Question(f"same_style_precision_at_{NEAREST}", style, concept, concept, "share"),
            Question(f"same_concept_hit_at_{NEAREST}", concept, style, concept, "any"),
        )

    def sample(self, count: int, seed: int) -> Int[np.ndarray, " Q"]:
        """Queries drawn at random, of each style in proportion; all pictures for 0 or artists."""
        if self.kind == ARTISTS or not 0 < count < len(self):
            return np.arange(len(self))
        shuffled = np.random.default_rng(seed).permutation(len(self))
        grouped = shuffled[np.argsort(self.labels["style"][shuffled], kind="stable")]
        return np.sort(grouped[np.arange(count) * len(self) // count])


def read_styles(path: str | Path, limit: int = 0, seed: int = 0) -> LabelledPictures:
    """Reads concepts that are drawn in several styles from a parquet file.

    Args:
        path: Its columns are those of `REQUIRED` and, if there, of `OPTIONAL`.
        limit: Keep only so many concepts, drawn at random; 0 = all.
        seed: Of that draw.

    Raises:
        ValueError: There is no such file, it has other columns, or too little is in it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--data: got {str(path)!r}, which is no file; expected {_wanted()}")
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(
            f"--data: {str(path)!r} cannot be read as parquet ({error}); expected {_wanted()}"
        ) from error
    missing = [name for name in REQUIRED if name not in schema.names]
    if missing:
        raise ValueError(
            f"--data: {str(path)!r} lacks {', '.join(missing)}; got {', '.join(schema.names)}; "
            f"expected {_wanted()}"
        )
    there = [name for name in (*REQUIRED, *OPTIONAL) if name in schema.names]
    table = pq.read_table(path, columns=there)
    columns = {}
    for name in there:
        kind = pa.binary() if name == "image" else pa.string()
        try:
            columns[name] = table[name].cast(kind).to_pylist()
        except (pa.ArrowException, NotImplementedError) as error:
            raise ValueError(
                f"--data: {str(path)!r} has {name} as {table[name].type}; expected {_wanted()}"
            ) from error
    labelled = [bool(c and s) for c, s in zip(columns["concept"], columns["style"], strict=True)]
    rows = np.flatnonzero(labelled)
    concept, concepts = _codes([columns["concept"][row] for row in rows])
    style, styles = _codes([columns["style"][row] for row in rows])
    if len(rows) == 0:
        raise ValueError(f"--data: {str(path)!r} has no pictures with a concept and a style.")
    for what, names in (("style", styles), ("concept", concepts)):
        if len(names) < 2:
            raise ValueError(
                f"--data: {str(path)!r} has one {what}, {names[0]!r}; expected two or more, else "
                "there is nothing to tell apart."
            )
    group, groups = _codes([(columns["group"][row] if "group" in there else "") or ""
                            for row in rows])  # fmt: skip
    titles = columns.get("name_en", columns["concept"])
    unlabelled = len(labelled) - len(rows)
    pictures = LabelledPictures(
        kind=STYLES,
        images=[columns["image"][row] for row in rows],
        titles=[titles[row] or columns["concept"][row] for row in rows],
        labels={"concept": concept, "style": style, "group": group},
        names={"concept": concepts, "style": styles, "group": groups},
        dropped={"without concept or style": unlabelled} if unlabelled else {},
    )
    return _limited(pictures, "concept", limit, seed)


def read_artists(limit: int = 0, seed: int = 0) -> LabelledPictures:
    """The built-in drawings of artists with at least 10 of them.

    Args:
        limit: Keep only so many artists, drawn at random; 0 = all.
        seed: Of that draw.

    Raises:
        FileNotFoundError: This installation has no built-in drawings.
    """
    table = openclipart.catalogue().select(["artist", "title", "image"]).to_pydict()
    artist, artists = _codes([name or "" for name in table["artist"]])
    count = np.bincount(artist)
    known = np.array([bool(name) for name in artists])
    rows = np.flatnonzero((count >= LEAST_DRAWINGS)[artist] & known[artist])
    pictures = LabelledPictures(
        kind=ARTISTS,
        images=[table["image"][row] for row in rows],
        titles=[table["title"][row] or "" for row in rows],
        labels={"artist": artist[rows]},
        names={"artist": artists},
        dropped={},
    )
    return _limited(pictures, "artist", limit, seed)


def _limited(pictures: LabelledPictures, name: str, limit: int, seed: int) -> LabelledPictures:
    codes = pictures.labels[name]
    present = np.unique(codes)
    if not 0 < limit < len(present):
        return pictures
    chosen = np.random.default_rng(seed).permutation(present)[:limit]
    return pictures.keep(np.flatnonzero(np.isin(codes, chosen)))


def _codes(values: Sequence[str]) -> tuple[Int[np.ndarray, " N"], list[str]]:
    names = sorted(set(values))
    place = {name: code for code, name in enumerate(names)}
    return np.array([place[value] for value in values], np.int64), names


def _wanted() -> str:
    columns = [f"{name} ({what})" for name, what in REQUIRED.items()]
    more = [f"{name} ({what})" for name, what in OPTIONAL.items()]
    return f"a parquet file with {', '.join(columns)}, and if you like {', '.join(more)}."


@dataclasses.dataclass(frozen=True)
class Move:
    """How a picture is moved: first scaled and rotated about its centre, then shifted.

    Attributes:
        shift: To the right and down, as shares of the side.
        scale: Factor; what grows beyond the frame is lost.
        turn: Degrees, clockwise.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    turn: float = 0.0


def draw_moves(count: int, seed: int) -> list[Move]:
    """Random moves, see `MOVES`."""
    rng = np.random.default_rng(seed)
    right, down = rng.uniform(-SHIFT, SHIFT, (2, count)).tolist()
    scale, turn = rng.uniform(*SCALE, count).tolist(), rng.uniform(-TURN, TURN, count).tolist()
    return [Move(*each) for each in zip(zip(right, down, strict=True), scale, turn, strict=True)]


def move_pictures(
    pictures: LabelledPictures,
    moves: Sequence[Move],
    pool: ThreadPoolExecutor,
    pixel_limit: int = image_files.PIXEL_LIMIT,
) -> LabelledPictures:
    """The same pictures moved, each as a square of at most 512 pixels; broken ones stay broken."""

    def task(data: bytes | None, move: Move) -> bytes | None:
        try:
            image = image_files.decode(data, LARGEST_SIDE, pixel_limit)
        except image_files.BadImage:
            return data
        side = min(max(image.size), LARGEST_SIDE)
        out = io.BytesIO()
        moved(Image.fromarray(image_files.letterbox(image, side)), move).save(
            out, "png", compress_level=1
        )
        return out.getvalue()

    return dataclasses.replace(pictures, images=list(pool.map(task, pictures.images, moves)))


def moved(square: Image.Image, move: Move) -> Image.Image:
    """A square RGB picture moved; white comes in from outside."""
    side, angle = square.width, np.deg2rad(move.turn)
    # Pillow wants, for each place of the result, where in the picture it comes from.
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / move.scale
    centre = np.full(2, side / 2)
    offset = centre - back @ (centre + np.array(move.shift) * side)
    return square.transform(
        square.size,
        Image.Transform.AFFINE,
        (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1]),
        Image.Resampling.BICUBIC,
        fillcolor=image_files.WHITE,
    )
