"""A list as one picture: what the person likes, what is recommended, and the weights behind it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from umair_jax.captions import fitting
from umair_jax.data.dataset import Dataset
from umair_jax.data.images import BadImage, load_square
from umair_jax.recommending.recommender import Pick, Recommendations

LIKED = 8
_COLUMNS, _TILE, _PAD, _LINE, _BAR, _TITLE = 5, 176, 12, 18, 10, 20
_SMALL = 84
_INK, _FAINT, _PAPER, _CARD = (27, 28, 30), (91, 93, 98), (251, 250, 247), (255, 255, 255)
# The colours of the report's page.
COLOURS = {
    "content": (0, 114, 178),
    "style": (221, 133, 0),
    "text": (0, 158, 115),
    "meta": (189, 100, 151),
}
_OTHER = (119, 119, 119)


def draw(found: Recommendations, dataset: Dataset, modalities: Sequence[str]) -> Image.Image:
    """The sheet.

    Args:
        found: A list for one person.
        dataset: Where the pictures are.
        modalities: Names of the weights.
    """
    liked = found.person.liked[::-1][:LIKED].tolist()
    cell = _TILE + _PAD
    caption = 3 * _LINE + (_BAR + _PAD if modalities else 0)
    lines = -(-max(len(found.picks), 1) // _COLUMNS)
    head = _TITLE + 2 * _PAD
    strip = (head + _SMALL + _PAD) if liked else 0
    size = (
        _COLUMNS * cell + _PAD,
        _PAD + strip + head + lines * (_TILE + caption + 2 * _PAD) + _LINE,
    )
    page = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(_TITLE), ImageFont.load_default(_LINE - 4)
    y = _PAD
    if liked:
        many = f"{len(found.person.liked):,} liked, the latest first"
        pen.text((_PAD, y), many, _INK, large)
        for place, item in enumerate(liked):
            _picture(page, (_PAD + place * (_SMALL + _PAD), y + head), dataset, item, _SMALL)
        y += strip
    said = f"The best {len(found.picks)} of {found.ranked:,} drawings"
    pen.text((_PAD, y), said, _INK, large)
    _legend(pen, (3 * _PAD + round(large.getlength(said)), y + 3), modalities, small)
    y += head
    for place, pick in enumerate(found.picks):
        line, column = divmod(place, _COLUMNS)
        corner = _PAD + column * cell, y + line * (_TILE + caption + 2 * _PAD)
        _pick(page, pen, corner, pick, dataset, modalities, small)
    return page


def neighbours(image: bytes, rows: Sequence[int], by: str, dataset: Dataset) -> Image.Image:
    """A picture, and beside it the drawings nearest to it.

    Args:
        image: The encoded picture.
        rows: Of the drawings, the nearest first.
        by: In what they are near.
        dataset: Where the drawings are.
    """
    cell, caption = _TILE + _PAD, 2 * _LINE + _PAD
    lines = -(-max(len(rows), 1) // (_COLUMNS - 1))
    head = _TITLE + 2 * _PAD
    page = Image.new("RGB", (_COLUMNS * cell + 2 * _PAD, head + lines * (_TILE + caption) + _PAD),
                     _PAPER)  # fmt: skip
    pen = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(_TITLE), ImageFont.load_default(_LINE - 4)
    start = cell + 2 * _PAD
    pen.text((_PAD, _PAD), "this picture", _INK, large)
    pen.text((start, _PAD), f"nearest by {by}", _INK, large)
    page.paste(Image.fromarray(load_square(image, _TILE)), (_PAD, head))
    for place, row in enumerate(rows):
        line, column = divmod(place, _COLUMNS - 1)
        x, y = start + column * cell, head + line * (_TILE + caption)
        _picture(page, (x, y), dataset, row, _TILE)
        title = dataset.items.title[row] or dataset.items.illust_id[row]
        pen.text((x, y + _TILE + 5), fitting(title, small, _TILE), _INK, small)
        if artist := dataset.items.artist[row]:
            said = fitting(f"by {artist}", small, _TILE)
            pen.text((x, y + _TILE + 5 + _LINE), said, _FAINT, small)
    return page


def _pick(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    pick: Pick,
    dataset: Dataset,
    modalities: Sequence[str],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x, y = corner
    _picture(page, corner, dataset, pick.item, _TILE)
    y += _TILE + _PAD // 2
    title = dataset.items.title[pick.item] or dataset.items.illust_id[pick.item]
    number = f"{pick.probability:.0%}"
    room = _TILE - font.getlength(number) - _PAD
    pen.text((x, y), fitting(title, font, int(room)), _INK, font)
    pen.text((x + _TILE, y), number, _INK, font, anchor="ra")
    y += _LINE
    if artist := dataset.items.artist[pick.item]:
        pen.text((x, y), fitting(f"by {artist}", font, _TILE), _FAINT, font)
    y += _LINE
    if pick.because:
        liked = dataset.items.title[pick.because.liked]
        said = f"{pick.because.by} like {liked or dataset.items.illust_id[pick.because.liked]}"
        pen.text((x, y), fitting(said, font, _TILE), _FAINT, font)
    y += _LINE + 3
    left = float(x)
    for name, weight in zip(modalities, pick.weights, strict=True):
        pen.rectangle((left, y, left + weight * _TILE, y + _BAR), COLOURS.get(name, _OTHER))
        left += weight * _TILE


def _legend(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    modalities: Sequence[str],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x, y = float(corner[0]), corner[1]
    for name in modalities:
        pen.rectangle((x, y + 3, x + _BAR, y + 3 + _BAR), COLOURS.get(name, _OTHER))
        pen.text((x + _BAR + 5, y), name, _FAINT, font)
        x += _BAR + font.getlength(name) + 2 * _PAD


def _picture(
    page: Image.Image, corner: tuple[int, int], dataset: Dataset, item: int, size: int
) -> None:
    pen = ImageDraw.Draw(page)
    x, y = corner
    pen.rectangle((x - 1, y - 1, x + size, y + size), _CARD, (220, 217, 210))
    try:
        square = load_square(dataset.image_bytes(item), size)
    except BadImage:
        font = ImageFont.load_default(_LINE - 4)
        pen.text((x + size / 2, y + size / 2), "no picture", _FAINT, font, anchor="mm")
        return
    page.paste(Image.fromarray(square), corner)
