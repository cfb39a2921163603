"""Training of the text encoder: pairs of texts, a tokenizer, and the encoder that comes out."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from umair_jax import hosts, results
from umair_jax.data import pair_batches, pair_split
from umair_jax.data.batches import BatchSource
from umair_jax.data.dataset import Dataset
from umair_jax.data.pair_batches import FIRST, SECOND, PairSource
from umair_jax.data.pair_split import TextPairs
from umair_jax.data.text_pairs import PERSPECTIVES, PairsConfig
from umair_jax.data.tokenizer import (
    Ragged,
    encode_ragged,
    load_tokenizer,
    table_size,
    train_tokenizer,
)
from umair_jax.encoding import text_model
from umair_jax.encoding.text_model import TextModel
from umair_jax.jobs import sections
from umair_jax.jobs.sections import DataConfig, ExportConfig
from umair_jax.models import weights
from umair_jax.models.text_encoder import TextEncoderConfig
from umair_jax.probes import pairs as probe
from umair_jax.tasks.text_pairs import PairObjectiveConfig, TextPairsTask
from umair_jax.training import retrieval
from umair_jax.training.evaluation import Arrays, Evaluator
from umair_jax.training.settings import FitConfig
from umair_jax.training.state import State, judged

LANGUAGES = "languages.jsonl"
_PADDING_SAMPLE = 20  # batches


@dataclasses.dataclass(frozen=True)
class WordsConfig:
    """How texts become tokens, and what training starts from.

    Attributes:
        vocabulary_size: Upper limit of the vocabulary, learned from the training pairs.
        max_tokens: Longest text, marks included; the rest is cut off. Also the length of a row into
            which several texts are packed.
        tokenizer: A tokenizer.json in place of a learned one; "" = learn one.
        weights: A trained text encoder that training starts from, with its tokenizer: a folder, see
            encoding.text_model, or "builtin"; "" = random weights.
    """

    vocabulary_size: int = 10_000
    max_tokens: int = 64
    tokenizer: str = ""
    weights: str = ""

    def __post_init__(self):
        if self.max_tokens < 3:
            raise ValueError(f"max_tokens: got {self.max_tokens}, expected 3 or more")
        if self.weights and self.tokenizer:
            raise ValueError(
                f"words: got weights {self.weights!r} and tokenizer {self.tokenizer!r}; expected "
                "one of them: weights bring the tokenizer that they were trained with"
            )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How the encoder is judged.

    Attributes:
        batch_size: Pairs a batch, over all devices.
    """

    batch_size: int = 256

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"eval: got batch_size {self.batch_size}, expected 1 or more")


SECTIONS = {
    "data": DataConfig,
    "pairs": PairsConfig,
    "words": WordsConfig,
    "model": TextEncoderConfig,
    "objective": PairObjectiveConfig,
    "eval": EvalConfig,
    "export": ExportConfig,
    **sections.COMMON,
}


@dataclasses.dataclass(frozen=True)
class TextPairsJob:
    """Everything that a config stands for, short of the training itself.

    Attributes:
        config: The resolved config.
        dataset: The catalogue that some of the pairs are of.
        pairs: The pairs.
        words: The tokenizer.
        tokens: The tokens of all texts.
        task: The encoder.
        fit: Options of the training.
        mix: How often an epoch has each perspective.
        options: Options of the tokens.
        eval: Options of the evaluation.
        exported: Options of what the run leaves.
    """

    config: ConfigDict
    dataset: Dataset
    pairs: TextPairs
    words: Tokenizer
    tokens: Ragged
    task: TextPairsTask
    fit: FitConfig
    mix: Mapping[str, float]
    options: WordsConfig
    eval: EvalConfig
    exported: ExportConfig

    @property
    def made_from(self) -> dict[str, str]:
        """The pairs, and the tokens of their texts, whose tokenizer may be learned from them."""
        pairs, digest = self.pairs, hashlib.sha256()
        columns = pairs.perspective, pairs.a, pairs.b, pairs.negative, *pairs.parts.values()
        for array in (self.tokens.lengths, self.tokens.tokens, *columns):
            digest.update(array.tobytes())
        return {"pairs of texts": digest.hexdigest()}

    @functools.cached_property
    def source(self) -> BatchSource:
        """The training pairs."""
        return self._pairs_of("train", self.fit.train.batch_size)

    @functools.cached_property
    def held_out(self) -> dict[str, PairSource]:
        """The pairs of the held-out parts, in order."""
        return {part: self._pairs_of(part, self.eval.batch_size) for part in results.PARTS}

    def _pairs_of(self, part: str, batch_size: int) -> PairSource:
        pairs, rows = self.pairs, self.pairs.parts[part]
        return PairSource(
            self.tokens,
            pairs.a[rows],
            pairs.b[rows],
            batch_size,
            negative=pairs.negative[rows] if part == "train" else None,
            group=pairs.perspective[rows],
            mix=[self.mix[name] for name in PERSPECTIVES],
            row_tokens=self.options.max_tokens,
            seed=self.fit.train.seed,
            shuffle=part == "train",
        )

    def evaluators(self) -> dict[str, Evaluator]:
        """Measures "valid" as the training goes, and both "valid" and "test" at its end."""
        return {
            part: Evaluator(
                self.held_out[part],
                functools.partial(self._metrics, part),
                final_only=part == "test",
            )
            for part in results.PARTS
        }

    def _metrics(self, part: str, arrays: Arrays) -> dict[str, float]:
        rank = probe.ranks(self.pairs, part, arrays[FIRST], arrays[SECOND])
        found = {
            f"{perspective}_{name}": value
            for perspective, values in probe.by_perspective(self.pairs, part, rank).items()
            for name, value in values.items()
        }
        return {
            "mrr": float((1 / rank).mean()),
            **found,
            "alignment": retrieval.alignment(arrays[FIRST], arrays[SECOND]),
            "uniformity": retrieval.uniformity(arrays[SECOND]),
        }

    def measured(self, evals: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """Metrics of both parts, and what the examples were."""
        pairs, sample = self.pairs, range(_PADDING_SAMPLE)
        return {
            **{name: dict(evals[part]) for part, name in results.PARTS.items()},
            "pairs": {part: len(rows) for part, rows in pairs.parts.items()},
            "bridging_pairs": pairs.bridges,
            "left_out": pairs.report.counts,
            "texts": len(pairs.texts),
            "vocabulary": table_size(self.words),
            "truncated_texts": self.tokens.truncated,
            "padding_share": pair_batches.padding_share(self.source.batch(k) for k in sample),
        }

    def export(
        self, workdir: Path, state: State, predict: Callable[[BatchSource], Arrays]
    ) -> dict[str, Any]:
        """Writes the encoder, its tokenizer, and a line for each pair of languages."""
        vectors = predict(self.held_out["test"])
        rank = probe.ranks(self.pairs, "test", vectors[FIRST], vectors[SECOND])
        lines = probe.by_language(self.pairs, "test", rank)
        if not hosts.is_first():
            return {"languages": lines}
        encoder = self.task.encoder(jax.device_get(judged(state)[0]))
        arrays = weights.flatten(encoder)
        model = TextModel(encoder.cfg, arrays, self.words, self.options.max_tokens)
        text_model.write(model, workdir, dtype=self.exported.dtype)
        text = "\n".join(json.dumps(line) for line in lines)
        (workdir / LANGUAGES).write_text(text + "\n", "utf-8")
        return {"languages": lines}

    def show(self, summary: Mapping[str, Any], console: Console) -> None:
        """Prints metrics of both parts, and the languages."""
        counts = ", ".join(f"{n:,} {part}" for part, n in summary["pairs"].items())
        table = Table(title=f"Pairs of texts: {counts}", title_justify="left")
        table.add_column("")
        for name in results.PARTS.values():
            table.add_column(name, justify="right")
        for metric in summary["test"]:
            cells = [summary[name][metric] for name in results.PARTS.values()]
            table.add_row(metric.replace("_", " "), *map("{:.4f}".format, cells))
        console.print(table)
        # Of a finished run alone.
        if "languages" in summary:
            _show_languages(summary["languages"], console)
        console.print(f"{summary['padding_share']:.1%} of the training tokens are padding.")


def _show_languages(lines: Sequence[Mapping[str, Any]], console: Console) -> None:
    table = Table(title="Multilingual test pairs", title_justify="left")
    for name in ("from", "to", "pairs", "recall at 1", "recall at 10", "mrr"):
        table.add_column(name, justify="left" if name in ("from", "to") else "right")
    for line in lines:
        values = [f"{line[name]:.3f}" for name in ("recall_at_1", "recall_at_10", "mrr")]
        table.add_row(line["from"], line["to"], str(line["pairs"]), *values)
    console.print(table)


def assemble(config: ConfigDict, console: Console) -> TextPairsJob:
    """Checks a config and makes what it names, the data set first.

    Raises:
        ValueError: A key or value that is not known, or data that cannot be used.
    """
    made = sections.read(config, SECTIONS)
    words_config: WordsConfig = made["words"]
    if made["train"].micro_batches != 1:
        raise ValueError(
            f"config.train.micro_batches: got {made['train'].micro_batches}, expected 1: the pairs "
            "of a batch are each other's negatives; use config.objective.parts"
        )
    dataset = sections.prepared(made["data"], console)
    pairs = pair_split.build(dataset.items, made["pairs"])
    if pairs.report.counts:
        console.print(pairs.report.table())
    start = None
    if words_config.weights:
        found = text_model.read(words_config.weights)
        words, start = found.words, found.encoder(made["model"], "config.model")
    elif words_config.tokenizer:
        words = load_tokenizer(words_config.tokenizer)
    else:
        words = train_tokenizer(pairs.texts_of("train"), words_config.vocabulary_size)
    shape = dataclasses.replace(made["model"], vocabulary=table_size(words))
    return TextPairsJob(
        config,
        dataset,
        pairs,
        words,
        encode_ragged(words, pairs.texts, words_config.max_tokens),
        TextPairsTask(shape, made["objective"], words_config.max_tokens, start),
        sections.fit_config(made),
        made["pairs"].mix,
        words_config,
        made["eval"],
        made["export"],
    )
