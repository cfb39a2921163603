"""A list as a table on the terminal and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umair_jax.data.dataset import Dataset
from umair_jax.recommending.recommender import Pick, Recommendations


def show(
    found: Recommendations, dataset: Dataset, modalities: Sequence[str], console: Console
) -> None:
    """Prints a list with its reasons."""
    who = f"user {escape(found.person.name)}" if found.person.user else "a new person"
    table = Table(
        title=f"For {who}, {len(found.person.liked):,} liked: the best {len(found.picks)} of "
        f"{found.ranked:,} ranked, {found.allowed:,} allowed",
        title_justify="left",
    )
    table.add_column("", justify="right")
    table.add_column("id", overflow="fold")
    table.add_column("drawing", overflow="fold")
    table.add_column("p", justify="right")
    for name in modalities:
        table.add_column(name, justify="right")
    table.add_column("like", overflow="fold")
    for rank, pick in enumerate(found.picks, 1):
        weights = (f"{weight:.0%}" for weight in pick.weights)
        table.add_row(
            str(rank),
            escape(dataset.items.illust_id[pick.item]),
            escape(described(dataset, pick.item)),
            f"{pick.probability:.3f}",
            *weights,
            escape(said(dataset, pick)),
        )
    console.print(table)
    if modalities:
        console.print(
            "p: probability of a bookmark. Percentages: what the ranker weighs in each drawing; "
            "meta is ids, artist,\ntags and counts. like: the nearest liked drawing, and in what."
        )


def described(dataset: Dataset, item: int) -> str:
    """Title and artist."""
    title = " ".join(dataset.items.title[item].split()) or "untitled"
    artist = " ".join(dataset.items.artist[item].split())
    return f"{title}, by {artist}" if artist else title


def said(dataset: Dataset, pick: Pick) -> str:
    """The reason in words; empty if there is none."""
    if pick.because is None:
        return ""
    liked = " ".join(dataset.items.title[pick.because.liked].split())
    return f"{liked or dataset.items.illust_id[pick.because.liked]} ({pick.because.by})"


def as_json(found: Recommendations, dataset: Dataset, modalities: Sequence[str]) -> dict[str, Any]:
    """A list as plain values; ids in place of rows."""
    ids = dataset.items.illust_id
    return {
        "user_id": found.person.name if found.person.user else None,
        "liked": [ids[row] for row in found.person.liked],
        "allowed": found.allowed,
        "ranked": found.ranked,
        "recommended": [
            {
                "rank": rank,
                "illust_id": ids[pick.item],
                "title": dataset.items.title[pick.item],
                "artist": dataset.items.artist[pick.item],
                "tags": list(dataset.items.tags[pick.item]),
                "probability": pick.probability,
                "weights": dict(zip(modalities, pick.weights, strict=True)),
                "because": None
                if pick.because is None
                else {
                    "illust_id": ids[pick.because.liked],
                    "by": pick.because.by,
                    "cosine": pick.because.cosine,
                },
            }
            for rank, pick in enumerate(found.picks, 1)
        ],
    }
