"""Captions in pictures: one line that fits."""

from __future__ import annotations

import unicodedata

from PIL import ImageFont


def fitting(
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
    head: float = 1.0,
) -> str:
    """The text in one line, with an ellipsis after a share `head` of what there is room for."""
    # Pillow's own font has no letters with accents.
    letters = unicodedata.normalize("NFKD", " ".join(text.split()))
    text = "".join(letter for letter in letters if not unicodedata.combining(letter))
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        first = round(kept * head)
        shown = text[:first].rstrip() + "…" + text[len(text) - (kept - first) :].lstrip()
        if font.getlength(shown) <= width:
            return shown
    return "…"
