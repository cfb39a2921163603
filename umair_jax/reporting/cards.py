"""People with their recommendations, and drawings with their neighbours, in HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

from umair_jax.data.dataset import Dataset
from umair_jax.data.simulate import MODALITIES as TASTES
from umair_jax.reporting.people import BOOKMARKED, PASSED, Person, Recommendation
from umair_jax.reporting.similar import VECTORS, Neighbours
from umair_jax.reporting.thumbnails import Thumbnails

# The share of a bar that a letter inside it takes, at the narrowest that the page draws one.
_LETTER = 0.028
_VISIBLE = 0.005
_MARKS = {BOOKMARKED: "bookmarked", PASSED: "passed over"}


def person(
    found: Person, number: int, dataset: Dataset, pictures: Thumbnails, modalities: Sequence[str]
) -> str:
    """One person: what was known, what is recommended, and the weights behind it.

    Args:
        found: The person.
        number: What the person is called on the page.
        dataset: Where the id comes from.
        pictures: Thumbnails of its drawings.
        modalities: Names of the weights; empty if the model has none.
    """
    name = f"Person {number}"
    who = html.escape(dataset.users.user_id[found.user])
    bars = ""
    if found.mean_weights:
        bars += _labelled("The model's mean weights, over the test examples", found.mean_weights,
                          modalities)  # fmt: skip
    if found.true_mixture:
        said = "True taste: ground truth of the simulation, which the model never sees"
        bars += _labelled(said, found.true_mixture, TASTES)
    if found.recent:
        recent = _strip([_figure(pictures, item) for item in found.recent], "recent")
    else:
        recent = '<p class="none">No bookmark before then: the model knows nothing of this one.</p>'
    known = (
        f"{_count(found.before, 'bookmark')} before; "
        f"{_count(found.test_examples, 'test example')}, {found.test_bookmarks:,} bookmarked"
    )
    picks = [_pick(pick, pictures, modalities) for pick in found.recommended]
    chosen = _strip(picks, "picks") if picks else '<p class="none">No drawing is left.</p>'
    return (
        f'<article class="person"><header><h3>{name} <small>{who}</small></h3>'
        f'<p>{known}</p>{bars}</header><div class="rows">'
        f"<h4>Bookmarked before <small>the last {len(found.recent)}, newest first</small></h4>"
        f"{recent}<h4>Recommended "
        f"<small>the best {len(picks)} of {found.candidates:,} drawings</small></h4>"
        f"{chosen}</div></article>"
    )


def colour(name: str) -> str:
    """The class of the style sheet that gives a modality its colour."""
    return f"m-{html.escape(name)}"


def legend(names: Sequence[str]) -> str:
    """Colours of the bars."""
    keys = "".join(
        f'<li><i class="key {colour(name)}"></i>{html.escape(name)}</li>' for name in names
    )
    return f'<ul class="legend">{keys}</ul>'


def neighbours(found: Sequence[Neighbours], dataset: Dataset, pictures: Thumbnails) -> str:
    """Each drawing with its nearest by style in one row and by content in the next."""
    articles = []
    for one in found:
        rows = "".join(
            f"<h4>Nearest by {vector}</h4>"
            + _strip(
                [_neighbour(one.item, k, dataset, pictures) for k in one.nearest[vector]], "near"
            )
            for vector in VECTORS
        )
        articles.append(
            f'<article class="query"><header>{_figure(pictures, one.item, dataset)}</header>'
            f'<div class="rows">{rows}</div></article>'
        )
    return "".join(articles)


def bar(shares: Sequence[float], names: Sequence[str], small: bool = False) -> str:
    """Shares as a stacked bar; in words for those who do not see it.

    Args:
        shares: Parts of 1.
        names: What each part is; also its class in the style sheet.
        small: Without letters inside.
    """
    said = ", ".join(f"{n} {share:.0%}" for n, share in zip(names, shares, strict=True))
    parts = "".join(
        f'<span class="{colour(name)}" style="flex-grow:{share:.4f}">'
        f"{_inside(name, share, small)}</span>"
        for name, share in zip(names, shares, strict=True)
        if share >= _VISIBLE
    )
    kind = "bar small" if small else "bar"
    return f'<div class="{kind}" role="img" aria-label="{said}" title="{said}">{parts}</div>'


def _inside(name: str, share: float, small: bool) -> str:
    if small:
        return ""
    said = (f"{name} {share:.0%}", f"{share:.0%}", "")
    return next(text for text in said if share >= _LETTER * len(text))


def _labelled(said: str, shares: Sequence[float], names: Sequence[str]) -> str:
    return f'<div class="labelled"><p>{said}</p>{bar(shares, names)}</div>'


def _strip(entries: Sequence[str], kind: str) -> str:
    return f'<ol class="strip {kind}">{"".join(f"<li>{entry}</li>" for entry in entries)}</ol>'


def _figure(pictures: Thumbnails, item: int, dataset: Dataset | None = None, more: str = "") -> str:
    """A thumbnail with its title, and its artist if there is a data set to ask."""
    title = html.escape(pictures.title(item))
    artist = html.escape(dataset.items.artist[item]) if dataset else ""
    by = f'<span class="artist">by {artist}</span>' if artist else ""
    return (
        f'<figure title="{html.escape(pictures.described(item))}">{pictures.element(item)}'
        f'<figcaption><span class="title">{title}</span>{by}{more}</figcaption></figure>'
    )


def _pick(pick: Recommendation, pictures: Thumbnails, modalities: Sequence[str]) -> str:
    mark = _MARKS.get(pick.outcome)
    more = f'<span class="score">{pick.probability:.1%}</span>'
    if pick.weights:
        more += bar(pick.weights, modalities, small=True)
    if mark:
        more += f'<span class="mark {pick.outcome}">{mark}</span>'
    return _figure(pictures, pick.item, more=more)


def _neighbour(query: int, item: int, dataset: Dataset, pictures: Thumbnails) -> str:
    artist = dataset.items.artist
    same = artist[item] and artist[item] == artist[query]
    return _figure(pictures, item, dataset, '<span class="same">same artist</span>' if same else "")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
