"""How fast our rankers train, against the same kinds of models in FuxiCTR and DeepCTR-Torch.

    python -m benchmarks.frameworks              (make bench-frameworks; needs the extra `bench`)
    python -m benchmarks.frameworks --illust_ids 100000 --batch_sizes 1024

Sizes are those of the paper: 23 sparse fields of width 8, 2,816 dense inputs, a mixture of 4
experts of rank 32, hidden layers of 64, 32 and 16. Ours are steps of the training loop, with
dropout, and lazy updates of the tables; the peers' are those of their own fit. All gather the
vectors of a batch from those of all drawings and states of users. Rounds of all take turns in one
process. What is compared is examples per CPU-second, for the frameworks use cores differently;
examples a second stand beside. Our model of the peer's kind is compared where vectors go into the
peer side by side, as they do into ours.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import machine, made_up, report
from benchmarks.ranker import Runner, train_step
from benchmarks.rounds import Contender, take_turns
from benchmarks.torch_rankers import CONCATENATED, HIDDEN, PEERS, Peers
from umair_jax.data.fields import Side
from umair_jax.data.ranking import RankingData
from umair_jax.memory import keep_freed_memory
from umair_jax.models.rankers import RANKERS, UMAIR_FPS
from umair_jax.tasks.bookmarks import BookmarksTask, batch_source, shape_of
from umair_jax.training.sharding import BatchPlacer, MeshConfig, make_mesh, place_context

BATCHES = 4  # different ones, served over and over
OPTIONS: dict[str, dict[str, Any]] = {
    UMAIR_FPS: {},
    "dcnv2": {},
    "finalmlp": {"first_widths": HIDDEN, "second_widths": HIDDEN, "heads": 1},
    "deepfm": {},
}
COLUMNS = {
    "case": "batch and peer",
    "peer": "peer, per CPU-second",
    "ours": "UMAIR-FPS, per CPU-second",
    "ratio": "ratio",
    "same_kind_ratio": "our model of its kind, ratio",
    "wall_ratio": "UMAIR-FPS, ratio of examples/s",
    "same_kind_wall_ratio": "of its kind, ratio of examples/s",
}


def peer_batch(
    data: RankingData, task: BookmarksTask, batch: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """A batch as the peers read it: indices of sparse values, rows of vectors, and labels."""
    schema, layout = data.schema, data.schema.embedding_layout()
    context = {name: jax.numpy.asarray(array) for name, array in data.context.items()}
    rows = np.asarray(task.table_rows(context, batch)["embedding"])
    order = (*schema.sparse(Side.USER), *schema.sparse(Side.ITEM))
    found: dict[str, np.ndarray] = {"label": batch["label"].astype(np.float32)}
    for place, field in enumerate(order):
        found[field.name] = np.maximum(rows[:, place] - layout.offsets[field.table], 0)
    for field in schema.dense():
        found[field.name] = batch["state"] if field.side is Side.USER else batch["item"]
    return found


def measure(
    data: RankingData,
    mesh: Mesh,
    context: Mapping[str, jax.Array],
    peers: Peers,
    names: Sequence[str],
    batch_size: int,
    rounds: int,
    round_seconds: float,
) -> list[dict[str, Any]]:
    """One result for each peer."""
    source = batch_source(data, "train", batch_size)
    batches = [source.batch(k) for k in range(BATCHES)]
    ours, tasks = {}, {}
    for name, options in OPTIONS.items():
        config = RANKERS[name](**{**shape_of(data.schema), **options})
        tasks[name] = BookmarksTask(data, config)
        machine.progress(f"batch {batch_size:,}: {name}")
        step, state = train_step(tasks[name], mesh)
        place = BatchPlacer(mesh, batch_size)
        ours[name] = Runner(step, state, context, batches, place, round_seconds)
    given = [peer_batch(data, tasks[UMAIR_FPS], batch) for batch in batches]
    theirs = {}
    for name in names:
        machine.progress(f"batch {batch_size:,}: {name}")
        step = peers.step(name, given)
        theirs[name] = Contender(name, step, lambda result: None, batch_size, round_seconds)
    take_turns([*ours.values(), *theirs.values()], rounds)
    found = []
    for name, peer in theirs.items():
        full, (_, kind, vectors) = ours[UMAIR_FPS], PEERS[name]
        same = ours[kind] if vectors == CONCATENATED else None
        found.append(
            {
                "bench": "frameworks",
                "case": f"{batch_size:,}, {name}",
                "ours": batch_size / full.cpu_seconds,
                "peer": batch_size / peer.cpu_seconds,
                "ratio": peer.cpu_seconds / full.cpu_seconds,
                "unit": "examples per CPU-second",
                "peer_name": name,
                "batch_size": batch_size,
                "same_kind": kind if same else None,
                "same_kind_ratio": peer.cpu_seconds / same.cpu_seconds if same else None,
                "wall_ratio": peer.seconds / full.step_seconds,
                "same_kind_wall_ratio": peer.seconds / same.step_seconds if same else None,
                "examples_per_second": batch_size / full.step_seconds,
                "peer_examples_per_second": peer.rate,
                "foreign_cpu_share": full.usage.foreign_share,
            }
        )
        report.emit(found[-1])
    return found


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parses the options, measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--batch_sizes", nargs="+", type=int, default=(128, 1024, 4096), help="examples a step"
    )
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each step")
    parser.add_argument("--round_seconds", type=float, default=0.7, help="length of a round")
    parser.add_argument(
        "--illust_ids", type=int, default=1_000_000, help="rows of the table of drawings"
    )
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS / "frameworks.jsonl", help="file to write"
    )
    options = parser.parse_args(argv)
    data = made_up.ranking_data(made_up.Sizes(illust_ids=options.illust_ids))
    vectors = {field.name: data.context[field.column] for field in data.schema.dense()}
    peers = Peers(data.schema, vectors)
    if peers.missing:
        parser.error(f"{peers.missing}; install umair-jax[bench]")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    context = place_context(data.context, mesh)
    about = machine.describe() | peers.about
    about |= {"device": jax.devices()[0].device_kind, "illust_ids": options.illust_ids}
    results = []
    for batch_size in options.batch_sizes:
        results += measure(
            data,
            mesh,
            context,
            peers,
            options.peers,
            batch_size,
            options.rounds,
            options.round_seconds,
        )
        gc.collect()  # the peers' tables, before the next ones are made
    results = [row | about for row in results]
    report.write(results, options.out)
    report.show("Train steps against other frameworks", results, COLUMNS)
    return results


if __name__ == "__main__":
    keep_freed_memory()
    main()
