"""Measures what is there, without training.

    python -m umair_jax.evaluate --workdir=runs/base [--checkpoint=best|newest|STEP]

prints the table that a training ended with again, from its working directory alone.

    python -m umair_jax.evaluate --task=weights --workdir=runs/base

asks whether the ranker's modality weights mean something: whether they follow what simulated users
are made of, and whether the modality with the largest weight is missed most.

    python -m umair_jax.evaluate --task=newcomers --workdir=runs/cold

asks how many bookmarks the ranker needs to know somebody new; of a run with
`--config.features.split=cold_user`, whose test users it has never seen.

    python -m umair_jax.evaluate --task=style --data=emoji_styles.parquet [--config=CONFIG.py]

asks whether the image encoder separates what a picture shows from how it is painted; without
weights (`--weights`, or `config.extract.image_weights`) of the untrained one.

    python -m umair_jax.evaluate --task=text --config=configs/text_pairs.py [--weights=FOLDER,...]

asks whether text encoders find the partners of held-out pairs of texts, in every language.
"""

from __future__ import annotations

from absl import flags
from ml_collections import config_flags

from umair_jax import pretrained, settings
from umair_jax.evaluate_newcomers import evaluate_newcomers
from umair_jax.evaluate_run import evaluate
from umair_jax.evaluate_style import evaluate_style
from umair_jax.evaluate_text import evaluate_text
from umair_jax.evaluate_weights import evaluate_weights
from umair_jax.memory import keep_freed_memory
from umair_jax.probes.style import ProbeConfig

TASKS = ("run", "weights", "newcomers", "style", "text")
# Flags that only some tasks read; the others would ignore them in silence.
ONLY = {
    "checkpoint": ("run", "weights", "newcomers"),
    "config": ("style", "text"),
    "weights": ("style", "text"),
    **dict.fromkeys(("data", "queries", "limit_concepts", "seed", "untrained"), ("style",)),
}


def define_flags() -> None:
    """The flags of the command line; in a function, since tests call it again."""
    options = ProbeConfig()
    flags.DEFINE_enum("task", "run", TASKS, "What is measured: a training, or vectors.")
    flags.DEFINE_string("workdir", None, "Folder of the run; runs/style, runs/text if left out.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or a number of updates.")
    config_flags.DEFINE_config_file(
        "config",
        "configs/base.py",
        "style: file with get_config(); its `extract` is the encoder. text: its `pairs`.",
    )
    flags.DEFINE_string(
        "data", None, "style: parquet file of concepts in several styles, or openclipart."
    )
    flags.DEFINE_string(
        "weights",
        "",
        "style: image weights in place of the config's; text: folders of encoders, of "
        "sentence-transformers too, with commas between; builtin = the package's.",
    )
    flags.DEFINE_integer("queries", options.queries, "style: pictures asked about; 0 = all.")
    flags.DEFINE_integer(
        "limit_concepts",
        options.limit_concepts,
        "style: use so many concepts and artists; 0 = all.",
    )
    flags.DEFINE_integer("seed", options.seed, "style: of queries and moves.")
    flags.DEFINE_bool("untrained", options.untrained, "style: measure random weights as well.")


def main(argv: list[str]) -> None:
    """Parses the flags and evaluates."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --workdir=runs/one")
    values = flags.FLAGS
    for name, tasks in ONLY.items():
        if values[name].present and values.task not in tasks:
            raise ValueError(
                f"--{name}: got it with --task={values.task}; expected --task={' or '.join(tasks)}"
            )
    if values.task == "style":
        if not values.data:
            raise ValueError("--data: got nothing; expected a parquet file, or openclipart")
        options = ProbeConfig(
            queries=values.queries,
            limit_concepts=values.limit_concepts,
            seed=values.seed,
            untrained=values.untrained,
        )
        workdir = values.workdir or "runs/style"
        evaluate_style(
            settings.loaded(values.config), values.data, workdir, options, values.weights
        )
        return
    if values.task == "text":
        places = (values.weights or pretrained.BUILTIN).split(",")
        evaluate_text(settings.loaded(values.config), values.workdir or "runs/text", places)
        return
    if not values.workdir:
        raise ValueError("--workdir: got nothing; expected the folder of a run, like runs/base")
    of_run = {"run": evaluate, "weights": evaluate_weights, "newcomers": evaluate_newcomers}
    of_run[values.task](values.workdir, values.checkpoint)


if __name__ == "__main__":
    keep_freed_memory()
    settings.run_front_door(main, define_flags)
