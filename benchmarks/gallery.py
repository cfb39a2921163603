"""How long somebody in the gallery waits for recommendations, over HTTP.

    python -m benchmarks.gallery [--items=10000] [--asks=300]

Makes up a catalogue with the fields and vectors of configs/base.py and a ranker of its shape, with
initial weights: what it costs does not depend on what it has learned. Serves the gallery from a
thread and asks for recommendations on one connection, with 1 to 20 likes, any balance, and every
other time with diversity. The peer, in turns with it, is the recommender called directly: what the
gallery adds. Prints quantiles of both; the aim is a p95 of 100 ms on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from benchmarks import machine, report
from configs import base
from umair_jax import gallery, settings
from umair_jax.data import feature_bank, ranking
from umair_jax.data.dataset import Dataset, Interactions, Items, Users
from umair_jax.data.feature_bank import FeatureBank, Shard
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.schema_config import SchemaConfig
from umair_jax.encoding import ExtractConfig
from umair_jax.gallery_app import ask
from umair_jax.gallery_app.app import make_app
from umair_jax.gallery_app.limits import Limits
from umair_jax.jobs import bookmarks
from umair_jax.jobs.bookmarks import BookmarksJob
from umair_jax.load_run import LoadedRun
from umair_jax.memory import keep_freed_memory
from umair_jax.recommending import person
from umair_jax.recommending.filters import Filters
from umair_jax.recommending.recommender import Recommender
from umair_jax.training import sharding
from umair_jax.training import state as states
from umair_jax.training.evaluation import Predictor
from umair_jax.training.optimisers import make_optimiser

_USERS, _INTERACTIONS, _ARTISTS, _TAGS = 200, 20_000, 500, 1000
_NUMBERS = (
    "width",
    "height",
    "total_view",
    "total_bookmarks",
    "sanity_level",
    "restrict",
    "x_restrict",
    "published",
)
_VECTORS = ("content", "style", "text")
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
COLUMNS = {
    "case": "catalogue",
    "p50_ms": "p50, ms",
    "ours": "p95, ms",
    "p99_ms": "p99, ms",
    "peer": "p95 without HTTP, ms",
    "ratio": "ratio",
    "foreign_cpu_share": "foreign CPU",
}


def catalogue(items: int, seed: int = 0) -> Dataset:
    """Drawings without pictures, and a short log about them."""
    rng = np.random.default_rng(seed)
    rows = range(1, items + 1)
    unknown = np.full(items + 1, -1, np.int64)
    tags = rng.integers(0, _TAGS, (items, 6))
    return Dataset(
        name="made up",
        simulated=True,
        items=Items(
            illust_id=("", *map(str, rows)),
            title=("", *(f"title {k}" for k in rows)),
            artist=("", *(f"artist {k}" for k in rng.integers(0, _ARTISTS, items))),
            description=("",) * (items + 1),
            category=("",) * (items + 1),
            tags=((), *(tuple(dict.fromkeys(f"tag {t}" for t in row)) for row in tags)),
            **dict.fromkeys(_NUMBERS, unknown),
        ),
        users=Users(*[("", *(f"u{k}" for k in range(1, _USERS + 1)))] * 2),
        interactions=Interactions(
            user=rng.integers(1, _USERS + 1, _INTERACTIONS, dtype=np.int32),
            item=rng.integers(1, items + 1, _INTERACTIONS, dtype=np.int32),
            timestamp=np.sort(rng.integers(0, 10**6, _INTERACTIONS)),
            label=(rng.random(_INTERACTIONS) < 0.3).astype(np.int8),
        ).ordered(),
        fingerprint=f"made up, {items}",
    )  # fmt: skip


def made_up_bank(folder: Path, key: str, items: int, config: ExtractConfig) -> FeatureBank:
    """Random vectors of the encoders' widths, written where a recommender reads them."""
    rng = np.random.default_rng(1)
    widths = (config.image.content_width, config.image.style_width, config.text.vector_width)
    there = np.arange(items + 1) > 0
    vectors = {
        name: rng.standard_normal((items + 1, width), dtype=np.float32) * there[:, None]
        for name, width in zip(_VECTORS, widths, strict=True)
    }
    folder.mkdir(parents=True)
    flags = {"has_image": there, "has_text": there}
    feature_bank.write_shard(folder, 0, Shard(0, {**vectors, **flags}), key)
    manifest = {
        "format_version": feature_bank.FORMAT_VERSION,
        "key": key,
        "items": items,
        "shards": 1,
        "sizes": dict(zip(_VECTORS, widths, strict=True)),
        "trained": False,
    }
    feature_bank.write_manifest(folder, manifest)
    return feature_bank.load(folder)


def recommender(items: int, root: Path, changes: dict[str, Any] | None = None) -> Recommender:
    """A recommender of configs/base.py with initial weights.

    Args:
        items: Drawings of its catalogue.
        root: Folder for the vectors.
        changes: Values of the config by dotted key.
    """
    config: ConfigDict = base.get_config()
    config.update_from_flattened_dict({"data.root": str(root)} | (changes or {}))
    dataset, console = catalogue(items), Console(stderr=True)
    sections = config.to_dict()
    encoders = settings.build(ExtractConfig, sections["extract"])
    schema = settings.build(SchemaConfig, sections["schema"]).schema()
    features = settings.build(RankingConfig, sections["features"])
    key = bookmarks.bank_key(dataset.catalogue_fingerprint, encoders)
    folder = bookmarks.bank_folder(root, key)
    bank = made_up_bank(folder, key, items, encoders)
    loaded = bookmarks.Loaded(dataset, ranking.build(dataset, bank, schema, features), folder)
    job = bookmarks.assemble(config, console, loaded)
    return Recommender(_initial(job))


def _initial(job: BookmarksJob) -> LoadedRun:
    fit = job.fit
    mesh = sharding.make_mesh(fit.mesh)
    init = states.initialiser(job.task, make_optimiser(fit.optim, 1), fit.tables, 0)
    state = states.create(init, states.abstract_state(init, mesh, fit.mesh.rules))
    context = sharding.place_context(job.task.context(), mesh, fit.mesh.context_rules)
    return LoadedRun(job, 0, state, context, Predictor(job.task, mesh))


class Visitor:
    """Asks for recommendations over one connection."""

    def __init__(self, port: int) -> None:
        """Connects."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(self, body: bytes) -> dict[str, Any]:
        """Recommendations for a body."""
        headers = {"content-type": "application/json"}
        self._connection.request("POST", "/api/recommendations", body, headers)
        answer = self._connection.getresponse()
        told = json.loads(answer.read())
        if answer.status != 200:
            raise ValueError(f"the gallery: got {answer.status}, {told}; expected 200")
        return told

    def close(self) -> None:
        """Hangs up."""
        self._connection.close()


def bodies(items: int, asks: int, seed: int = 2) -> list[dict[str, Any]]:
    """What is asked for."""
    rng = np.random.default_rng(seed)
    return [
        {
            "likes": [str(row) for row in rng.integers(1, items + 1, rng.integers(1, 21))],
            "balance": float(rng.uniform(-1, 1)),
            "diversity": 0.35 * (k % 2),
            "k": 12,
        }
        for k in range(asks)
    ]


def run(items: int, asks: int, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Measures one catalogue.

    Args:
        items: Its drawings.
        asks: Requests, and as many direct calls.
        changes: Values of the config by dotted key.
    """
    machine.progress(f"making up {items:,} drawings")
    usage = {"gallery": machine.Usage(), "recommender": machine.Usage()}
    with tempfile.TemporaryDirectory() as folder, gallery.listen("127.0.0.1", 0) as listening:
        found = recommender(items, Path(folder), changes)
        free = dataclasses.replace(Limits(), api_rate=1e9, api_burst=10**9)
        server = gallery.server_of(make_app(found, limits=free))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        visitor = Visitor(listening.getsockname()[1])
        try:
            gallery.warm_up(found)
            visitor.ask(json.dumps(bodies(items, 1)[0]).encode())
            machine.progress(f"asking {asks} times")
            for body in bodies(items, asks):
                text = json.dumps(body).encode()
                with usage["gallery"].round():
                    visitor.ask(text)
                with usage["recommender"].round():
                    _direct(found, text)
        finally:
            visitor.close()
            server.should_exit = True
            thread.join()
    ms = {name: 1e3 * np.array(one.seconds) for name, one in usage.items()}
    return {
        "bench": "gallery",
        "part": f"{items} items",
        "case": f"{items:,} drawings",
        "ours": float(np.quantile(ms["gallery"], QUANTILES["p95"])),
        "peer": float(np.quantile(ms["recommender"], QUANTILES["p95"])),
        "peer_name": "recommender without HTTP",
        "ratio": float(np.median(ms["gallery"]) / np.median(ms["recommender"])),
        "unit": "ms, p95; ratio: of the medians",
        **{
            f"{name}_ms": float(np.quantile(ms["gallery"], share))
            for name, share in QUANTILES.items()
        },
        "asks": asks,
        "foreign_cpu_share": usage["gallery"].foreign_share,
        **machine.describe(),
    }


def _direct(found: Recommender, text: bytes) -> None:
    asked = ask.parse(text, Limits())
    who = person.of_likes(found.dataset, asked.likes, found.moment)
    found.recommend(who, asked.request(Filters()))


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parses the options, measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000], help="drawings")
    parser.add_argument("--asks", type=int, default=300, help="requests")
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS / "gallery.jsonl", help="file to write"
    )
    options = parser.parse_args(argv)
    results = []
    for items in options.items:
        results.append(run(items, options.asks))
        report.emit(results[-1])
    report.write(results, options.out)
    report.show("The wait for recommendations", results, COLUMNS)
    return results


if __name__ == "__main__":
    keep_freed_memory()
    main()
