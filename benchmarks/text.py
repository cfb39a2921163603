"""How fast the text encoder is, against sentence-transformers on the same weights in the same run.

    python -m benchmarks.text                           (make bench-text)
    python -m benchmarks.text --weights=FOLDER --texts 4096

Parts:

    encode   sentences of mixed length to vectors, tokenising included: FrozenTextEncoder against
             SentenceTransformer.encode with batches of 32 (the library's own) and of --batch_size
    train    one update of AdamW on the ranking loss over a batch of pairs: ours packs the texts
             and places them, the peer is given tokens that are there already

The texts are those of the built-in pairs: tags, titles and explanations. Without --weights the
network has random ones, in the shape of MiniLM-L6. Rounds take turns. Without sentence-transformers
(pip install sentence-transformers, see the extra `parity`) there is no peer, as the results say.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import machine, report
from benchmarks.rounds import Contender, take_turns
from benchmarks.torch_sentences import SentencePeer
from umair_jax.data import text_pairs
from umair_jax.data.pair_batches import PairSource
from umair_jax.data.report import Report
from umair_jax.data.text_pairs import PairsConfig
from umair_jax.data.tokenizer import encode_ragged
from umair_jax.encoding import FrozenTextEncoder, text_model
from umair_jax.encoding.text_model import TextModel
from umair_jax.interop.sentence_transformers import write_sentence_transformers
from umair_jax.memory import keep_freed_memory
from umair_jax.models import weights
from umair_jax.models.initialise import HostDraws
from umair_jax.models.losses import RankingConfig
from umair_jax.models.text_encoder import TextEncoder, TextEncoderConfig
from umair_jax.tasks.text_pairs import PairObjectiveConfig, TextPairsTask
from umair_jax.training import state as states
from umair_jax.training.optimisers import OptimConfig, make_optimiser
from umair_jax.training.sharding import DEFAULT_RULES, BatchPlacer, MeshConfig, make_mesh
from umair_jax.training.step import TrainStep
from umair_jax.training.table_optimisers import TableOptimConfig

PARTS = ("encode", "train")
_MINILM = {"layers": 6, "width": 384, "heads": 12, "ffn": 1536, "max_positions": 512}
_BATCHES = 8  # different ones, served over and over
_SCALE = 20.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        texts: Sentences of a round of encoding.
        batch_size: The peer's larger batch of sentences; and rows a call of ours.
        pairs: Pairs of a batch in training.
        max_tokens: Longest text.
        rounds: Rounds of each contender.
        round_seconds: Length of a round, about.
    """

    texts: int
    batch_size: int
    pairs: int
    max_tokens: int
    rounds: int
    round_seconds: float

    def contender(self, name: str, dispatch: Callable, wait: Callable, items: int) -> Contender:
        """A piece of work, compiled, for rounds of this length."""
        machine.progress(f"  compiling {name}")
        return Contender(name, dispatch, wait, items, self.round_seconds)


def run(settings: Settings, place: str, parts: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Measures the parts, prints and returns one result for each peer.

    Args:
        settings: What is measured.
        place: A text model, see encoding.text_model; "" = random weights in MiniLM's shape.
        parts: Some of PARTS.
        folder: Where the model is written for the peer.
    """
    model = text_model.read(place) if place else _random()
    cfg = model.config
    write_sentence_transformers(cfg, model.arrays, model.words, folder / "model")
    peer = SentencePeer(folder / "model", settings.max_tokens)
    named = Path(place).name if place else "random weights"
    about = machine.describe() | {
        "device": jax.devices()[0].device_kind,
        "network": f"{cfg.layers} layers of width {cfg.width}, {named}",
    }
    about |= {"torch": peer.missing} if peer.missing else peer.about
    if peer.missing:
        machine.progress(f"no peer: {peer.missing}")
    pairs = _pairs(max(settings.texts, _BATCHES * settings.pairs))
    results = []
    for part in parts:
        machine.progress(part)
        for row in {"encode": encode, "train": train}[part](settings, model, peer, pairs):
            results.append({"bench": "text", "part": part} | row | about)
            report.emit(results[-1])
    return results


def encode(
    settings: Settings, model: TextModel, peer: SentencePeer, pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Sentences to vectors: ours, and the library's with two sizes of batches."""
    texts = [text for pair in pairs for text in pair][: settings.texts]
    encoder = FrozenTextEncoder(
        model.encoder(), model.words, max_tokens=settings.max_tokens, rows=settings.batch_size
    )
    lengths = encode_ragged(model.words, texts, settings.max_tokens).lengths
    extra: dict[str, Any] = {
        "texts": len(texts),
        "mean_tokens": float(lengths.mean()),
        "longest_tokens": int(lengths.max()),
    }
    ours = settings.contender("ours", lambda: encoder.encode(texts), _there, len(texts))
    rivals = []
    if not peer.missing:
        extra["largest_cosine_distance"] = _distance(
            encoder.encode(texts)[0], peer.encode(texts, settings.batch_size)
        )
        rivals = [
            settings.contender(
                f"sentence-transformers, batches of {size}",
                lambda size=size: peer.encode(texts, size),
                peer.wait,
                len(texts),
            )
            for size in dict.fromkeys((32, settings.batch_size))
        ]
    take_turns([ours, *rivals], settings.rounds)
    return [_row(ours, rival, "sentences/s") | extra for rival in rivals or [None]]


def train(
    settings: Settings, model: TextModel, peer: SentencePeer, pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """One update after another on a few batches of pairs, dropout on."""
    pairs = pairs[: _BATCHES * settings.pairs]
    step, _ = _our_step(settings, model, pairs)
    ours = settings.contender("ours", step, jax.block_until_ready, settings.pairs)
    rival = None
    if not peer.missing:
        batches = [
            tuple(zip(*pairs[start : start + settings.pairs], strict=True))
            for start in range(0, len(pairs), settings.pairs)
        ]
        theirs = peer.train_step(batches, _SCALE)
        rival = settings.contender("sentence-transformers", theirs, peer.wait, settings.pairs)
    take_turns([ours] if rival is None else [ours, rival], settings.rounds)
    return [_row(ours, rival, "pairs/s") | {"batch_size": settings.pairs}]


def _our_step(
    settings: Settings, model: TextModel, pairs: Sequence[tuple[str, str]]
) -> tuple[Callable[[], Any], Callable[[Any], dict[str, tuple[float, float]]]]:
    """What packs the next batch, places it and dispatches the update; and names its metrics."""
    texts = [text for pair in pairs for text in pair]
    places = np.arange(len(texts), dtype=np.int32)
    source = PairSource(
        encode_ragged(model.words, texts, settings.max_tokens),
        places[::2],
        places[1::2],
        settings.pairs,
        row_tokens=settings.max_tokens,
        shuffle=False,
    )
    objective = PairObjectiveConfig(RankingConfig(scale=_SCALE, symmetric=False))
    task = TextPairsTask(model.config, objective, settings.max_tokens, model.encoder())
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    optimiser = make_optimiser(OptimConfig("adamw", 2e-5, weight_decay=0.01), 1000)
    tables = TableOptimConfig()
    init = states.initialiser(task, optimiser, tables, seed=0)
    abstract = states.abstract_state(init, mesh, DEFAULT_RULES)
    step = TrainStep(task, optimiser, tables, mesh, 0, abstract)
    place = BatchPlacer(mesh, settings.pairs)
    held = [states.create(init, abstract)]
    turns = itertools.count()

    def run() -> Any:
        batch = place(source.batch(next(turns) % _BATCHES))
        held[0], metrics = step(held[0], {}, batch)
        return metrics

    return run, step.unpack


def _there(result: object) -> None:
    """Vectors on the host are complete when they are returned."""


def _random() -> TextModel:
    words = text_model.read("builtin").words
    config = TextEncoderConfig(
        vocabulary=words.get_vocab_size(), token_types=2, output=0, normalise=True, **_MINILM
    )
    arrays = weights.flatten(TextEncoder(config, rngs=HostDraws(0)))
    return TextModel(config, arrays, words, config.max_positions)


def _pairs(count: int) -> list[tuple[str, str]]:
    """Built-in pairs of all perspectives, in the order of a seeded draw."""
    found = _builtin()
    order = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[i] for i in order]


@functools.cache
def _builtin() -> list[tuple[str, str]]:
    return [(pair.a, pair.b) for pair in text_pairs.read(None, PairsConfig(), Report())]


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, other))
    return float(1 - (one * other).sum(1).min())


def _row(ours: Contender, rival: Contender | None, unit: str) -> dict[str, Any]:
    peer = None if rival is None else rival.rate
    return {
        "case": "no peer" if rival is None else rival.name,
        "ours": ours.rate,
        "peer": peer,
        "ratio": None if peer is None else ours.rate / peer,
        "unit": unit,
        "peer_name": "none in this run" if rival is None else rival.name,
        "round_ms": 1e3 * ours.seconds,
        "peer_round_ms": None if rival is None else 1e3 * rival.seconds,
        "foreign_cpu_share": ours.usage.foreign_share,
    }


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parses the options, measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--weights", default="", help='a text model\'s folder, or "builtin"')
    parser.add_argument("--texts", type=int, default=1024, help="sentences of a round")
    parser.add_argument("--batch_size", type=int, default=64, help="rows, sentences of a call")
    parser.add_argument("--pairs", type=int, default=128, help="pairs of a batch in training")
    parser.add_argument("--max_tokens", type=int, default=64, help="longest text")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each contender")
    parser.add_argument("--round_seconds", type=float, default=2.0, help="length of a round")
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS / "text.jsonl", help="file to write"
    )
    options = vars(parser.parse_args(argv))
    parts, place, out = (options.pop(name) for name in ("parts", "weights", "out"))
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        results = run(Settings(**options), place, parts, Path(folder))
    report.write(results, out)
    report.show(
        "Text encoder",
        results,
        {
            "part": "part",
            "case": "against",
            "unit": "unit",
            "ours": "ours",
            "peer": "peer",
            "ratio": "ratio",
            "foreign_cpu_share": "foreign CPU",
        },
    )
    return results


if __name__ == "__main__":
    main()
