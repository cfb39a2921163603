"""One file that needs nothing else: style and pictures are inside, no script, no network."""

from __future__ import annotations

import dataclasses
import html
import importlib.resources
from collections.abc import Sequence

from umair_jax import reporting

_STYLE = "page.css"


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its anchor.
        title: Its heading, as text.
        body: Its content, as HTML.
    """

    name: str
    title: str
    body: str


def document(title: str, head: str, sections: Sequence[Section], foot: str) -> str:
    """The page.

    Args:
        title: Title of the page, as text.
        head: What stands below the title, as HTML.
        sections: In their order.
        foot: What stands at the end, as HTML.
    """
    style = (importlib.resources.files(reporting) / _STYLE).read_text("utf-8")
    links = "".join(f'<li><a href="#{s.name}">{html.escape(s.title)}</a></li>' for s in sections)
    body = "\n".join(
        f'<section id="{s.name}" aria-labelledby="{s.name}-heading">'
        f'<h2 id="{s.name}-heading">{html.escape(s.title)}</h2>\n{s.body}</section>'
        for s in sections
    )
    said = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{said}</title>\n<style>\n{style}</style></head>\n"
        f'<body><header class="top"><h1>{said}</h1>\n{head}\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n'
        f"<main>\n{body}\n</main>\n<footer>{foot}</footer></body></html>\n"
    )
