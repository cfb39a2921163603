"""Queries beside their neighbours by style and by content, as one picture."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from PIL import Image, ImageDraw, ImageFont

from umair_jax import captions
from umair_jax.data import images as image_files
from umair_jax.probes.neighbours import Question, nearest
from umair_jax.probes.pictures import STYLES, LabelledPictures
from umair_jax.probes.style import Findings

QUERIES, SHOWN = 10, 5
_TILE, _PAD, _GAP = 96, 7, 26
_CAPTION, _TITLE, _FRAME = 13, 17, 3
_INK, _FAINT, _RIGHT, _WRONG = (25, 25, 25), (110, 110, 110), (24, 138, 62), (200, 42, 42)
_PAPER, _CARD = (244, 244, 242), (255, 255, 255)


def draw(findings: Findings, seed: int = 0) -> Image.Image:
    """Ten queries, a row each: the query, its five nearest by style, and by content.

    A frame is green where the neighbour has what its vector should find (style or concept; for
    drawings the artist) in common with the query, red where not.

    Args:
        findings: With the main encoder's vectors, which are compared as they are.
        seed: Chooses the queries.
    """
    pictures, questions = findings.pictures, findings.pictures.questions()
    rows = choose(pictures, seed)
    panels = [("style", questions[0]), ("content", questions[-1])]
    neighbours = [
        nearest(
            findings.vectors[vector][rows],
            findings.vectors[vector],
            question.group[rows],
            question.group,
            SHOWN,
        )
        for vector, question in panels
    ]
    step = _TILE + 2 * _PAD
    height = _TILE + 2 * _PAD + 2 * (_CAPTION + 4)
    panel = SHOWN * step
    top, left = 4 * _PAD + 2 * _TITLE + 12, 2 * _PAD
    starts = [left + step + _GAP, left + step + 2 * _GAP + panel]
    page = Image.new(
        "RGB", (starts[1] + panel + 2 * _PAD, top + len(rows) * height + 2 * _PAD), _PAPER
    )
    pen = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(_TITLE), ImageFont.load_default(_CAPTION)
    heads = [(left, "query", f"{findings.main} encoder")]
    for start, (vector, question) in zip(starts, panels, strict=True):
        heads.append((start, f"nearest by {vector} vector", _promise(pictures, vector, question)))
    for x, first, second in heads:
        pen.text((x + _PAD, 2 * _PAD), first, _INK, large)
        pen.text((x + _PAD, 2 * _PAD + _TITLE + 7), second, _FAINT, small)
    for line, row in enumerate(rows):
        y = top + line * height
        _tile(page, (left, y), pictures, int(row), None)
        for start, (_, question), found in zip(starts, panels, neighbours, strict=True):
            for place, other in enumerate(found[line]):
                hit = bool(question.label[other] == question.label[row])
                _tile(page, (start + place * step, y), pictures, int(other), hit)
    return page


def choose(pictures: LabelledPictures, seed: int) -> Int[np.ndarray, " Q"]:
    """Queries spread over the styles and groups, or over the artists; each of another concept."""
    rng = np.random.default_rng(seed)
    styled = pictures.kind == STYLES
    main = pictures.labels["style" if styled else "artist"]
    other = pictures.labels["group" if styled else "artist"]
    what = pictures.labels["concept"] if styled else np.arange(len(pictures))
    order = rng.permutation(len(pictures))
    uses = {"main": np.zeros(main.max() + 1), "other": np.zeros(other.max() + 1)}
    taken: list[int] = []
    while len(taken) < min(QUERIES, len(np.unique(what))):
        fresh = order[~np.isin(what[order], what[taken])]
        # The rarest style so far, and among its pictures the rarest group; large groups first.
        size = np.bincount(other, minlength=len(uses["other"]))
        rank = np.lexsort((-size[other[fresh]], uses["other"][other[fresh]],
                           uses["main"][main[fresh]]))  # fmt: skip
        row = int(fresh[rank[0]])
        taken.append(row)
        uses["main"][main[row]] += 1
        uses["other"][other[row]] += 1
    return np.array(taken, np.int64)


def _promise(pictures: LabelledPictures, vector: str, question: Question) -> str:
    if pictures.kind != STYLES:
        return "green: by the same artist"
    other, same = ("concepts", "style") if vector == "style" else ("styles", "concept")
    return f"among other {other}; green: the same {same}"


def _tile(
    page: Image.Image,
    corner: tuple[int, int],
    pictures: LabelledPictures,
    row: int,
    hit: bool | None,
) -> None:
    """A picture with its title and its style or artist below; framed if it is a neighbour."""
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_CAPTION)
    x, y = corner[0] + _PAD, corner[1] + _PAD
    colour = _INK if hit is None else _RIGHT if hit else _WRONG
    pen.rectangle((x - _FRAME, y - _FRAME, x + _TILE + _FRAME - 1, y + _TILE + _FRAME - 1),
                  _CARD, colour, 1 if hit is None else _FRAME)  # fmt: skip
    square = image_files.load_square(pictures.image_bytes(row), _TILE)
    page.paste(Image.fromarray(square), (x, y))
    name = "style" if pictures.kind == STYLES else "artist"
    label = pictures.names[name][int(pictures.labels[name][row])]
    width = _TILE + 2 * _FRAME + 2
    title = captions.fitting(pictures.titles[row], font, width)
    # Names of styles often begin alike.
    label = captions.fitting(label, font, width, head=0.5 if name == "style" else 1.0)
    place = x - _FRAME, y + _TILE + _FRAME + 3
    pen.text(place, title, _INK, font)
    pen.text((place[0], place[1] + _CAPTION + 3), label, _FAINT, font)
