"""One page about a finished run of the ranker, to look at and to send around.

    python -m umair_jax.report --workdir=runs/base [--checkpoint=best|newest|STEP] [--users=10]

writes report.html into the run's folder: curves, metrics, calibration, what a few people would be
shown and why, and what style finds beside content. The file needs nothing else, not even a network.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from umair_jax import load_run, results, settings
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.simulate import MODALITIES as TASTES
from umair_jax.jobs.bookmarks import BookmarksJob
from umair_jax.load_run import LoadedRun
from umair_jax.memory import keep_freed_memory
from umair_jax.reporting import cards, charts, measured, numbers, page, people, similar
from umair_jax.reporting.measured import Calibration
from umair_jax.reporting.page import Section
from umair_jax.reporting.thumbnails import Thumbnails
from umair_jax.training import logs
from umair_jax.training.evaluation import Arrays
from umair_jax.training.record import digest

PAGE = "report.html"
TASK = "bookmarks"
BYLINE = ("Checkpoint", "Config", "Code", "Page made")


def report(
    workdir: str | Path,
    checkpoint: str = "best",
    users: int = 10,
    out: str | Path | None = None,
    console: Console | None = None,
) -> Path:
    """Writes the page of a run.

    Args:
        workdir: Folder of a finished run of the ranker.
        checkpoint: best, newest, or the number of updates behind it.
        users: How many people to show.
        out: File to write; report.html in the run's folder if left out.
        console: Where notices go.

    Returns:
        Where the page is.

    Raises:
        ValueError: There is no such run or checkpoint, it is of another task, it is not finished,
            or `users` is below 1.
    """
    console = console or Console()
    workdir = Path(workdir)
    record = load_run.recorded(workdir)
    summary = check(workdir, record, users)
    run = load_run.load(workdir, checkpoint, console)
    job = run.bookmarks
    test = job.evaluators()["test"].source
    predicted = run.predict(test)
    pictures = Thumbnails(job.dataset)

    found = measured.calibration(test.column("label"), predicted["probability"])
    lines = logs.read(workdir)
    sections = [
        Section("curves", "How it learned", _curves(lines, run.step)),
        Section("metrics", "How good it is", _metrics(summary, run.step)),
        Section("calibration", "Whether its probabilities are true", _calibration(found)),
        Section("people", "What it recommends", _people(run, job, predicted, users, pictures)),
        Section("neighbours", "What style finds, and what content finds",
                _neighbours(job, pictures)),
    ]  # fmt: skip
    whose = numbers.banner(job.dataset.simulated, job.dataset.name)
    facts = _facts(job, record, run.step)
    head = whose + numbers.figures(numbers.headlines(summary)) + numbers.byline(facts, BYLINE)
    foot = numbers.facts(facts)
    path = Path(out) if out else workdir / PAGE
    text = page.document(f"Recommending drawings of {job.dataset.name}", head, sections, foot)
    results.write_text(path, text)
    console.print(
        f"Checkpoint {run.step:,} of {workdir}: {len(text) / 1e6:.1f} MB in {path}", markup=False
    )
    return path


def check(workdir: Path, record: Mapping[str, Any], users: int) -> dict[str, Any]:
    """The summary of a run that the page can be about.

    Raises:
        ValueError: It cannot; before anything long is done.
    """
    task = record["config"].get("task", TASK)
    if task != TASK:
        raise ValueError(
            f"{workdir}: got a run of the task {task!r}; expected {TASK!r}: the page shows what a "
            "ranker recommends; name the folder of a run of configs/base.py"
        )
    if users < 1:
        raise ValueError(f"users: got {users}; expected 1 or more people to show")
    summary = results.read(workdir)
    if not summary:
        raise ValueError(
            f"{workdir}: got no {results.SUMMARY}; expected a finished run; let the training end "
            "(the same command goes on), or measure a checkpoint with umair_jax.evaluate"
        )
    return summary


def _curves(lines: list[dict[str, Any]], step: int) -> str:
    found = measured.curves(lines)
    loss = list(zip(("first", "second"), found["loss"], strict=True))
    auc = [("second", curve) for curve in found["auc"]]
    weights = [(cards.colour(curve.name), curve) for curve in found["weights"]]
    panels = [
        charts.over_steps(loss, step, "Loss", "loss, in nats", "loss"),
        charts.over_steps(auc, step, "AUC", "AUC", "auc"),
    ]
    if weights:
        title = "Mean weight of each modality"
        panels.append(charts.over_steps(weights, step, title, "weight, validation", "weights"))
    about = (
        f"<p>Dotted: update {step:,}, whose state the rest of the page shows. Upright strokes: "
        "95 % intervals.</p>"
    )
    return f'{about}<div class="panels">{"".join(panels)}</div>'


def _calibration(found: Calibration) -> str:
    about = (
        f"<p>{int(found.count.sum()):,} test examples in bins of equal width. Of the examples that "
        "the model gives a probability of 0.7, seven in ten should be bookmarked: points below the "
        "dashed line promise too much, points above it too little.</p>"
    )
    return (
        f'<div class="beside">{charts.calibration(found, "calibration")}'
        f"<div>{about}{numbers.bins(found)}</div></div>"
    )


def _metrics(summary: Mapping[str, Any], step: int) -> str:
    of = summary.get("evaluated_step", summary.get("best_step", step))
    note = ""
    if of != step:
        note = (
            f"<p><strong>This table is of update {of:,}</strong>, the rest of the page of update "
            f"{step:,}. umair_jax.evaluate renews the table.</p>"
        )
    return note + numbers.table(summary)


def _people(
    run: LoadedRun, job: BookmarksJob, predicted: Arrays, users: int, pictures: Thumbnails
) -> str:
    modalities = job.task.modality_names
    eligible = len(people.eligible(job.data))
    chosen = people.choose(job.data, users)
    shown = []
    for number, user in enumerate(chosen, 1):
        person = people.recommend(
            job.dataset,
            job.data,
            job.features,
            int(user),
            run.predict,
            job.eval.batch_size,
            predicted,
        )
        shown.append(cards.person(person, number, job.dataset, pictures, modalities))
    about = (
        f"<p>{len(chosen)} people, drawn at random from the {eligible:,} with at least "
        f"{people.ENOUGH} test examples, each at the moment of the first of these. Every drawing "
        "that was out by then and that they had not bookmarked got a probability; these are the "
        "highest. Drawings that the test part shows them are marked; it shows a few of all, "
        "chosen without the model.</p>"
    )
    if modalities:
        about += (
            "<p>Bars: how the model weighs what it knows of a drawing. <em>meta</em> is ids, "
            "artist, tags and counts; <em>text</em> is tags and title as the text encoder "
            "reads them; <em>content</em> and <em>style</em> come from the picture.</p>"
            + cards.legend(modalities)
        )
    if job.dataset.users.true_mixture is not None:
        about += (
            "<p>True tastes have other parts: <em>content</em> is a liking for tags, which the "
            "model meets as text and as meta; <em>artist</em> and <em>popularity</em> reach it as "
            "meta alone. The two bars need not look alike.</p>"
            + cards.legend([name for name in TASTES if name not in modalities])
        )
    return about + "".join(shown)


def _neighbours(job: BookmarksJob, pictures: Thumbnails) -> str:
    bank = job.bank()
    found = similar.neighbours(bank)
    if not found:
        return "<p>Too few drawings have a picture.</p>"
    untrained = "" if bank.manifest.get("trained_image", True) else (
        " <strong>The image encoder is untrained.</strong>"
    )  # fmt: skip
    return (
        f"<p>{len(found)} drawings, drawn at random, and the nearest others by cosine of the "
        "image encoder's two vectors. Content should find the same thing drawn otherwise, "
        f"style other things drawn the same way.{untrained}</p>"
        + cards.neighbours(found, job.dataset, pictures)
    )


def _facts(job: BookmarksJob, record: Mapping[str, Any], step: int) -> dict[str, str]:
    """What one has to know to get this page again."""
    dataset, config = job.dataset, record["config"]
    parts = {part: len(job.data.rows(part)) for part in ("train", "valid", "test")}
    devices, versions = record.get("devices", {}), dict(record.get("versions", {}))
    return {
        "Source": dataset.name + (" (simulated bookmarks)" if dataset.simulated else ""),
        "Drawings": f"{len(dataset.items):,}",
        "People": f"{len(dataset.users):,}",
        "Examples": ", ".join(f"{count:,} {part}" for part, count in parts.items()),
        "Split": config.get("features", {}).get("split", RankingConfig().split),
        "Checkpoint": f"update {step:,}",
        "Config": digest(config)[:12],
        "Data": dataset.fingerprint[:12],
        "Trained on": f"{devices.get('count', 1)} x {devices.get('kind', 'unknown device')}",
        "Code": f"umair_jax {versions.pop('umair_jax', '')}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Page made": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def define_flags() -> None:
    """The flags of the command line; in a function, since tests call it again."""
    flags.DEFINE_string("workdir", None, "Folder of a finished run.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or a number of updates.")
    flags.DEFINE_integer("users", 10, "How many people to show.")
    flags.DEFINE_string("out", None, f"File to write; {PAGE} in the run's folder if left out.")


def main(argv: list[str]) -> None:
    """Parses the flags and writes the page."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --workdir=runs/one")
    values = flags.FLAGS
    if not values.workdir:
        raise ValueError("--workdir: got nothing; expected the folder of a run, like runs/base")
    report(values.workdir, values.checkpoint, values.users, values.out)


if __name__ == "__main__":
    keep_freed_memory()
    settings.run_front_door(main, define_flags)
