"""How well text vectors find the partners of held-out pairs; see umair_jax/probes/pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from umair_jax import encoding, pretrained, results, settings
from umair_jax.data import pair_split
from umair_jax.data.pair_split import TextPairs
from umair_jax.data.text_pairs import PERSPECTIVES, PairsConfig
from umair_jax.data.tokenizer import load_tokenizer, table_size
from umair_jax.encoding import ExtractConfig
from umair_jax.jobs.sections import DataConfig, prepared
from umair_jax.models import weights as weight_files
from umair_jax.models.initialise import HostDraws
from umair_jax.models.text_encoder import TextEncoder, TextEncoderConfig
from umair_jax.probes import pairs as probe
from umair_jax.training import retrieval

PART = "test"
TRAINED, UNTRAINED, NGRAMS = "trained", "untrained", "character_ngrams"
_LANGUAGES, _TAGS, _NEAREST = ("en", "ja", "fr"), 10, 3


def evaluate_text(
    config: ConfigDict,
    workdir: str | Path,
    weights: str = pretrained.BUILTIN,
    tokenizer: str = pretrained.BUILTIN,
    console: Console | None = None,
) -> dict[str, Any]:
    """Encodes the texts of held-out pairs and looks for partners.

    Beside the trained encoder stand one of the same shape with random weights, and TF-IDF of
    character n-grams (scikit-learn; left out, with a note, where it is not installed).

    Args:
        config: That of the training, of which `data` and `pairs` are read: they say which texts
            are held out.
        workdir: Where summary.json goes.
        weights: A text encoder; "builtin" = the one of the package.
        tokenizer: Its tokenizer.json; likewise.
        console: Where tables go.

    Returns:
        The summary: {encoder: {perspective: {recall_at_1, recall_at_10, mrr}, "alignment",
        "uniformity"}}, and "languages" and "nearest" of the trained encoder.

    Raises:
        ValueError: The config, the weights or the pairs cannot be used.
    """
    console = console or Console()
    began = time.monotonic()
    sections = config.to_dict()
    if "pairs" not in sections:
        raise ValueError(
            f"config: got the sections {', '.join(sections)}; expected pairs, as in "
            "configs/text_pairs.py; it says which texts are held out"
        )
    options = settings.build(PairsConfig, sections["pairs"], "config.pairs")
    items = None  # beside a file, the catalogue's pairs are never held out
    if not options.path:
        items = prepared(settings.build(DataConfig, sections["data"], "config.data"), console).items
    pairs = pair_split.build(items, options)
    texts = pairs.texts_of(PART)
    place = {text: i for i, text in enumerate(texts)}
    rows = pairs.parts[PART]
    first = np.array([place[pairs.texts[i]] for i in pairs.a[rows]])
    second = np.array([place[pairs.texts[i]] for i in pairs.b[rows]])

    path = pretrained.text_encoder(weights)
    words = load_tokenizer(pretrained.tokenizer(tokenizer))
    shape = settings.build(TextEncoderConfig, weight_files.read_settings(path), f"{path}: settings")
    if shape.vocabulary != table_size(words):
        raise ValueError(
            f"{path}: got a vocabulary of {shape.vocabulary:,}, expected the tokenizer's "
            f"{table_size(words):,}; give the tokenizer that belongs to the weights"
        )
    found: dict[str, Any] = {}
    vectors = {}
    for name in (TRAINED, UNTRAINED):
        model = TextEncoder(shape, rngs=HostDraws(0))
        if name == TRAINED:
            weight_files.load(model, path)
        extract = ExtractConfig(text=shape, max_tokens=min(64, shape.max_positions))
        raw, _ = encoding.FrozenTextEncoder(extract, model, words).encode(texts)
        vectors[name] = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
        found[name] = _measured(pairs, vectors[name], first, second)
        found[name]["alignment"] = retrieval.alignment(vectors[name][first], vectors[name][second])
        found[name]["uniformity"] = retrieval.uniformity(vectors[name])
    sparse = _ngrams(pairs.texts_of("train"), texts, console)
    if sparse is not None:
        found[NGRAMS] = _measured(pairs, sparse, first, second)
    rank = probe.ranks(pairs, PART, vectors[TRAINED][first], vectors[TRAINED][second])
    summary = {
        "task": "text",
        "weights": path,
        **found,
        "languages": probe.by_language(pairs, PART, rank),
        "nearest": _nearest(pairs, texts, vectors[TRAINED]),
        "pairs": len(rows),
        "seconds": time.monotonic() - began,
    }
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    results.write(workdir, summary)
    show(summary, console)
    console.print(f"Encoder: {path}. Written to {workdir}: {results.SUMMARY}")
    return summary


def _measured(
    pairs: TextPairs, vectors: Any, first: np.ndarray, second: np.ndarray
) -> dict[str, Any]:
    rank = probe.ranks(pairs, PART, vectors[first], vectors[second])
    return dict(probe.by_perspective(pairs, PART, rank))


def _ngrams(known: Sequence[str], texts: Sequence[str], console: Console) -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        console.print(f"No {NGRAMS}: scikit-learn is not installed.")
        return None
    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), min_df=2)
    return vectoriser.fit(known).transform(texts)


def _nearest(pairs: TextPairs, texts: Sequence[str], vectors: np.ndarray) -> list[dict[str, Any]]:
    """Texts of held-out multilingual pairs that are nearest to some of them, to be read."""
    rows = pairs.parts[PART]
    rows = rows[pairs.perspective[rows] == PERSPECTIVES.index("multilingual")]
    spoken: dict[str, dict[str, None]] = {}
    for text, language in (
        *zip(pairs.a[rows], pairs.lang_a[rows], strict=True),
        *zip(pairs.b[rows], pairs.lang_b[rows], strict=True),
    ):
        spoken.setdefault(pairs.languages[language], {})[pairs.texts[text]] = None
    place = {text: i for i, text in enumerate(texts)}
    candidates = list(dict.fromkeys(text for among in spoken.values() for text in among))
    matrix = vectors[[place[text] for text in candidates]]
    found = []
    for language in _LANGUAGES:
        among = list(spoken.get(language, {}))
        for text in among[:: max(1, len(among) // _TAGS)][:_TAGS]:
            order = np.argsort(-(matrix @ vectors[place[text]]), kind="stable")
            near = [candidates[i] for i in order if candidates[i] != text][:_NEAREST]
            found.append({"language": language, "text": text, "nearest": near})
    return found


def show(summary: dict[str, Any], console: Console) -> None:
    """Prints what was found."""
    table = Table(title=f"{summary['pairs']:,} held-out pairs of texts", title_justify="left")
    table.add_column("encoder")
    table.add_column("perspective")
    metrics = ("recall_at_1", "recall_at_10", "mrr")
    for metric in metrics:
        table.add_column(metric.replace("_", " "), justify="right")
    for name in (TRAINED, UNTRAINED, NGRAMS):
        for perspective in PERSPECTIVES:
            values = summary.get(name, {}).get(perspective)
            if values:
                cells = [f"{values[metric]:.3f}" for metric in metrics]
                table.add_row(name.replace("_", " "), perspective, *cells)
    console.print(table)
    table = Table(title="Multilingual pairs, trained encoder", title_justify="left")
    for name in ("from", "to", "pairs", *metrics):
        table.add_column(
            name.replace("_", " "), justify="left" if name in ("from", "to") else "right"
        )
    for line in summary["languages"]:
        values = [f"{line[metric]:.3f}" for metric in metrics]
        table.add_row(line["from"], line["to"], str(line["pairs"]), *values)
    console.print(table)
    table = Table(title="Nearest held-out texts in any language", title_justify="left")
    for name in ("language", "text", "nearest"):
        table.add_column(name)
    for line in summary["nearest"]:
        table.add_row(line["language"], line["text"], " | ".join(line["nearest"]))
    console.print(table)
