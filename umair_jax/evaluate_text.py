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
from umair_jax.encoding import text_model
from umair_jax.jobs.sections import DataConfig, prepared
from umair_jax.models.initialise import HostDraws
from umair_jax.models.text_encoder import TextEncoder
from umair_jax.probes import pairs as probe
from umair_jax.training import retrieval

PART = "test"
UNTRAINED, NGRAMS = "untrained", "character_ngrams"
_LANGUAGES, _TAGS, _NEAREST = ("en", "ja", "fr"), 10, 3


def evaluate_text(
    config: ConfigDict,
    workdir: str | Path,
    places: Sequence[str] = (pretrained.BUILTIN,),
    console: Console | None = None,
) -> dict[str, Any]:
    """Encodes the texts of held-out pairs and looks for partners.

    Beside the trained encoders stand one of the first one's shape with random weights, and TF-IDF
    of character n-grams (scikit-learn; left out, with a note, where it is not installed).

    Args:
        config: That of the training, of which `data` and `pairs` are read: they say which texts
            are held out.
        workdir: Where summary.json goes.
        places: Folders of text encoders, see encoding.text_model; "builtin" = the package's.
        console: Where tables go.

    Returns:
        The summary: {encoder: {perspective: {recall_at_1, recall_at_10, mrr}, "unknown_tokens",
        "alignment", "uniformity"}}, a folder's encoder under its name, and "languages" and
        "nearest" of the first one.

    Raises:
        ValueError: The config, the weights or the pairs cannot be used, or two folders have one
            name.
    """
    console = console or Console()
    began = time.monotonic()
    sections = config.to_dict()
    if "pairs" not in sections:
        raise ValueError(
            f"config: got the sections {', '.join(sections)}; expected pairs, as in "
            "configs/text_pairs.py; it says which texts are held out"
        )
    models = {name: text_model.read(place) for name, place in _named(places).items()}
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

    leader, model = next(iter(models.items()))
    random = TextEncoder(model.config, rngs=HostDraws(0))
    encoders = {name: (model.encoder(), model) for name, model in models.items()}
    encoders[UNTRAINED] = (random, model)
    found: dict[str, Any] = {}
    vectors = {}
    for name, (encoder, model) in encoders.items():
        frozen = encoding.FrozenTextEncoder(encoder, model.words, max_tokens=model.max_tokens)
        raw, counts = frozen.encode(texts)
        vectors[name] = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
        found[name] = _measured(pairs, vectors[name], first, second)
        found[name]["unknown_tokens"] = counts["unknown_tokens"]
        found[name]["alignment"] = retrieval.alignment(vectors[name][first], vectors[name][second])
        found[name]["uniformity"] = retrieval.uniformity(vectors[name])
    sparse = _ngrams(pairs.texts_of("train"), texts, console)
    if sparse is not None:
        found[NGRAMS] = _measured(pairs, sparse, first, second)
    rank = probe.ranks(pairs, PART, vectors[leader][first], vectors[leader][second])
    summary = {
        "task": "text",
        "weights": _named(places),
        "encoders": [*found],
        **found,
        "languages": probe.by_language(pairs, PART, rank),
        "nearest": _nearest(pairs, texts, vectors[leader]),
        "pairs": len(rows),
        "seconds": time.monotonic() - began,
    }
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    results.write(workdir, summary)
    show(summary, console)
    console.print(f"Written to {workdir}: {results.SUMMARY}")
    return summary


def _named(places: Sequence[str]) -> dict[str, str]:
    """The place of each encoder, by the name that it has in tables."""
    taken = {UNTRAINED, NGRAMS, "task", "weights", "encoders", "languages", "nearest", "pairs"}
    found: dict[str, str] = {}
    for place in places:
        name = place if place == pretrained.BUILTIN else Path(place).resolve().name
        if name in found or name in taken:
            raise ValueError(
                f"--weights: got {place!r}, whose name {name!r} is taken; rename the folder."
            )
        found[name] = place
    return found


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
    for name in summary["encoders"]:
        for perspective in PERSPECTIVES:
            values = summary.get(name, {}).get(perspective)
            if values:
                cells = [f"{values[metric]:.3f}" for metric in metrics]
                table.add_row(name.replace("_", " "), perspective, *cells)
    console.print(table)
    unknown = [
        f"{name} {summary[name]['unknown_tokens']:,}"
        for name in summary["encoders"]
        if "unknown_tokens" in summary[name]
    ]
    console.print(f"Tokens of held-out texts that are not in the vocabulary: {', '.join(unknown)}.")
    leader = summary["encoders"][0]
    table = Table(title=f"Multilingual pairs, {leader}", title_justify="left")
    for name in ("from", "to", "pairs", *metrics):
        table.add_column(
            name.replace("_", " "), justify="left" if name in ("from", "to") else "right"
        )
    for line in summary["languages"]:
        values = [f"{line[metric]:.3f}" for metric in metrics]
        table.add_row(line["from"], line["to"], str(line["pairs"]), *values)
    console.print(table)
    table = Table(title=f"Nearest held-out texts in any language, {leader}", title_justify="left")
    for name in ("language", "text", "nearest"):
        table.add_column(name)
    for line in summary["nearest"]:
        table.add_row(line["language"], line["text"], " | ".join(line["nearest"]))
    console.print(table)
