"""What a person would be shown, and why.

    python -m umair_jax.recommend --workdir=runs/base --user=ID
    python -m umair_jax.recommend --workdir=runs/base --like=ID,ID,ID
    python -m umair_jax.recommend --workdir=runs/base --image=drawing.png --by=style
    python -m umair_jax.recommend --workdir=runs/base --all

The first is somebody of the log; the second somebody new, who names drawings that they like. Both
get the drawings that the ranker finds most probable, as of the end of the log. The third lists the
nearest drawings to any picture, by its style or by its content. Each prints a table and writes a
JSON file and a picture; the last writes lists for everybody to Parquet files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umair_jax import load_run, results, settings
from umair_jax.memory import keep_freed_memory
from umair_jax.recommending import everyone, output, person, recommender, retriever, sheet
from umair_jax.recommending.choice import ChoiceConfig
from umair_jax.recommending.filters import Filters
from umair_jax.recommending.person import Person
from umair_jax.recommending.recommender import Recommender, Request

FOLDER = "recommendations"


def recommend(
    found: Recommender, who: Person, request: Request, out: Path, console: Console
) -> dict[str, Any]:
    """Answers one person: table, <out>.json and <out>.png.

    Returns:
        What the JSON file has.
    """
    answer = found.recommend(who, request)
    output.show(answer, found.dataset, found.modalities, console)
    _shorter(len(answer.picks), request, console)
    values = output.as_json(answer, found.dataset, found.modalities)
    _write(out, values)
    sheet.draw(answer, found.dataset, found.modalities).save(_file(out, ".png"))
    _say_where(out, console)
    return values


def similar(
    found: Recommender, image: Path, by: str, k: int, out: Path, console: Console
) -> dict[str, Any]:
    """Lists the drawings nearest to a picture by "style" or "content".

    Raises:
        ValueError: The picture cannot be read, or there is no such vector of pictures.
    """
    if by not in ("style", "content"):
        raise ValueError(f"--by: got {by!r}; expected style or content")
    try:
        vectors = found.look_at(image.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"--image: {image} cannot be used: {error}") from error
    rows, cosines = found.similar(by, vectors[by], k)
    items = found.dataset.items
    table = Table(title=escape(f"Nearest to {image.name} by {by}"), title_justify="left")
    for header in ("", "id", "drawing", "cosine"):
        table.add_column(header, overflow="fold")
    for rank, (row, cosine) in enumerate(zip(rows, cosines, strict=True), 1):
        cells = items.illust_id[row], output.described(found.dataset, int(row))
        table.add_row(str(rank), *map(escape, cells), f"{cosine:.3f}")
    console.print(table)
    values = {
        "image": image.name,
        "by": by,
        "nearest": [
            {"illust_id": items.illust_id[row], "cosine": float(cosine)}
            for row, cosine in zip(rows, cosines, strict=True)
        ],
    }
    _write(out, values)
    picture = sheet.neighbours(image.read_bytes(), rows.tolist(), by, found.dataset)
    picture.save(_file(out, ".png"))
    _say_where(out, console)
    return values


def recommend_to_all(
    found: Recommender,
    request: Request,
    folder: Path,
    run: dict[str, Any],
    console: Console,
) -> dict[str, Any]:
    """Lists for every user of the log; see everyone.write."""
    manifest = everyone.write(found, request, folder, run, console)
    rate = manifest["users_per_second"]
    speed = f"{rate:,.0f} users/s" if rate else "all there already"
    console.print(
        f"{manifest['rows']:,} recommendations for {manifest['users']:,} users ({speed}; "
        f"{manifest['short']:,} with fewer than {request.choice.k}) in {folder}",
        markup=False,
    )
    return manifest


def _shorter(got: int, request: Request, console: Console) -> None:
    if got < request.choice.k:
        console.print(
            f"[bold]Only {got} of {request.choice.k}:[/bold] the filters leave no more; loosen "
            "--block_tags, --max_sanity_level, --per_artist or --hide_shown"
        )


def _write(out: Path, values: dict[str, Any]) -> None:
    results.write_text(_file(out, ".json"), json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _file(out: Path, ending: str) -> Path:
    return out.with_name(out.name + ending)  # a name may have dots of its own


def _say_where(out: Path, console: Console) -> None:
    files = " and ".join(str(_file(out, ending)) for ending in (".json", ".png"))
    console.print(f"Written to {files}", markup=False)


def request_of(values: Any) -> Request:
    """The request that the flags stand for.

    Raises:
        ValueError: A value is out of its range.
    """
    return Request(
        ChoiceConfig(values.k, values.per_artist, values.diversity),
        Filters(
            bookmarked=values.show_bookmarked,
            shown=not values.hide_shown,
            block_tags=tuple(values.block_tags or ()),
            max_sanity_level=values.max_sanity_level,
        ),
        values.candidates,
        values.balance,
    )


def define_flags() -> None:
    """The flags of the command line; in a function, since tests call it again."""
    flags.DEFINE_string("workdir", None, "Folder of a run of the ranker.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or a number of updates.")
    flags.DEFINE_string("retrieval", None, "Folder of a run of configs/retrieval.py: candidates.")
    flags.DEFINE_integer("candidates", 500, "How many it retrieves for the ranker.")
    flags.DEFINE_string("user", None, "Id of a user of the log.")
    flags.DEFINE_list("like", None, "Ids of drawings that somebody new likes.")
    flags.DEFINE_string("image", None, "A picture to find the nearest drawings of.")
    flags.DEFINE_string("by", "style", "With --image: style or content.")
    flags.DEFINE_bool("all", False, "Lists for every user, as Parquet.")
    flags.DEFINE_integer("k", 10, "Length of a list.")
    flags.DEFINE_integer("per_artist", 0, "Drawings of one artist, at most; 0 = any number.")
    flags.DEFINE_float("diversity", 0.0, "0 = the best alone, 1 = as unlike as can be.")
    flags.DEFINE_float("balance", 0.0, "-1 = towards the liked content, 1 = the liked style.")
    flags.DEFINE_list("block_tags", None, "Tags that no drawing may have.")
    flags.DEFINE_integer("max_sanity_level", None, "Highest rating; unrated ones go as well.")
    flags.DEFINE_bool("hide_shown", False, "Leave out what the log has shown already.")
    flags.DEFINE_bool("show_bookmarked", False, "Keep what is bookmarked already.")
    flags.DEFINE_string("out", None, "File without ending (with --all, folder) to write.")


def main(argv: list[str]) -> None:
    """Parses the flags and answers."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --user=ID")
    values = flags.FLAGS
    if not values.workdir:
        raise ValueError("--workdir: got nothing; expected the folder of a run, like runs/base")
    asked = {
        name: value for name in ("user", "like", "image", "all") if (value := getattr(values, name))
    }
    if len(asked) != 1:
        got = ", ".join(f"--{name}" for name in asked) or "nothing"
        raise ValueError(f"got {got}; expected one of --user, --like, --image, --all")
    request = request_of(values)
    console = Console()
    towers = retriever.load(values.retrieval, console) if values.retrieval else None
    found = recommender.load(values.workdir, values.checkpoint, console, towers)
    for tag in found.unknown_tags(request.filters):
        console.print(f"--block_tags: no drawing has the tag {tag!r}", style="bold", markup=False)
    kind = next(iter(asked))
    folder = Path(values.workdir) / FOLDER
    if kind == "all":
        run = {
            "workdir": str(values.workdir),
            "step": found.step,
            "retrieval": values.retrieval,
            "config": load_run.recorded(values.workdir)["config"],
            "data": found.dataset.fingerprint,
            "retrieval_step": towers.step if towers else None,
        }
        recommend_to_all(found, request, Path(values.out or folder / "all"), run, console)
    elif kind == "image":
        image = Path(values.image)
        out = Path(values.out or folder / f"{image.stem}-{values.by}")
        similar(found, image, values.by, values.k, out, console)
    else:
        if kind == "user":
            who = person.of_log(found.dataset, values.user, found.moment)
            name = f"user-{found.dataset.users.user_id.index(values.user, 1)}"
        else:
            who, name = person.of_likes(found.dataset, values.like, found.moment), "likes"
        recommend(found, who, request, Path(values.out or folder / name), console)


if __name__ == "__main__":
    keep_freed_memory()
    settings.run_front_door(main, define_flags)
