"""What the published speeds of a GPU that is not here allow, by count of what its programs move.

    python -m benchmarks.limits [--gpu h200] [--batches 4096 65536]         (make bench-limits)

Needs the extra `cuda`, and no GPU. The programs are those that XLA compiles for the card: an update
of the full ranker in the paper's sizes, as in benchmarks/ranker.py, and full ResNet101 at 224
pixels in bfloat16, folded, without and with the style head. Each kernel reads its operands and
writes its results, as if there were no caches; see umair_jax/training/hlo.py. Nothing is timed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import machine, made_up, our_resnet, report
from umair_jax.data.ranking import RankingData
from umair_jax.models.folding import FoldedImageEncoder
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from umair_jax.models.initialise import HostDraws
from umair_jax.models.ranker import RankerConfig
from umair_jax.tasks.bookmarks import BookmarksTask, batch_source, shape_of
from umair_jax.training import ahead
from umair_jax.training.settings import FitConfig, TrainConfig
from umair_jax.training.sharding import MeshConfig, make_mesh

SIZES = made_up.Sizes()
NETWORK: dict[str, Any] = {}
IMAGE: dict[str, Any] = {"base_width": 64, "image_size": 224, "dtype": "bfloat16"}
COLUMNS = {
    "case": "",
    "kernels": "kernels",
    "gflop": "GFLOP",
    "gbytes": "GB moved",
    "memory_ms": "memory's limit, ms",
    "arithmetic_ms": "arithmetic's, ms",
    "most": "a second, at the most",
    "unit": "",
    "memory_gb": "GB of memory",
}


def ranker(
    data: RankingData,
    batch_size: int,
    dtype: str,
    mesh: Any,
    platforms: tuple[str, ...] | None = None,
) -> Any:
    """An update of the full ranker, lowered; in bfloat16 with vectors in bfloat16, too."""
    dense = {field.column for field in data.schema.dense()}
    stored = {
        name: array.astype(jnp.dtype(dtype)) if name in dense else array
        for name, array in data.context.items()
    }
    data = dataclasses.replace(data, context=stored)
    config = RankerConfig(**{**shape_of(data.schema), "dtype": dtype, **NETWORK})
    task = BookmarksTask(data, config)
    fit = FitConfig(TrainConfig(batch_size=batch_size, epochs=1.0))
    source = batch_source(data, "train", batch_size)
    return ahead.lower_update(task, source, fit, mesh, platforms)


def encode(
    encoder: ImageEncoder,
    call: Callable,
    batch_size: int,
    mesh: Any,
    platforms: tuple[str, ...] | None = None,
) -> Any:
    """A call of the encoder, lowered."""
    graph, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
    there = NamedSharding(mesh, P())
    weights = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there),
        (nnx.to_pure_dict(params), nnx.to_pure_dict(stats)),
    )
    size = encoder.cfg.image_size
    images = jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.float32, sharding=there)
    called = jax.jit(lambda weights, x: call(nnx.merge(graph, *weights), x))
    return called.trace(weights, images).lower(lowering_platforms=platforms)


def counted(
    case: str, lower: Callable[[Any], Any], things: int, unit: str, kind: str, speed: float
) -> dict[str, Any]:
    """One result.

    Args:
        case: What is counted.
        lower: Makes it for a mesh.
        things: How many examples or images it takes.
        unit: What they are.
        kind: The card, of ahead.GPUS.
        speed: FLOP/s of products in the type that is computed in.
    """
    machine.progress(case)
    gpu = ahead.GPUS[kind]
    found, kernels = ahead.cost_on_gpus(lower, make_mesh(MeshConfig(), ahead.devices_of(kind)))
    memory, arithmetic = found.size / gpu.peak.bandwidth, found.flops / speed
    return {
        "bench": "limits",
        "case": case,
        "card": gpu.name,
        "kernels": kernels,
        "gflop": found.flops / 1e9,
        "gbytes": found.size / 1e9,
        "memory_ms": 1e3 * memory,
        "arithmetic_ms": 1e3 * arithmetic,
        "most": things / max(memory, arithmetic),
        "unit": unit,
        "memory_gb": found.memory / 1e9,
    } | machine.describe()


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parses the options, counts, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpu", default="h200", choices=ahead.GPUS)
    parser.add_argument(
        "--batches", nargs="+", type=int, default=[4096, 65_536, 262_144], help="of the ranker"
    )
    parser.add_argument("--images", type=int, default=256, help="a call of the encoder")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "limits.jsonl")
    given = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    gpu = ahead.GPUS[given.gpu]
    cases: list[tuple[str, Callable[[Any], Any], int, str, float]] = []
    if given.batches:
        sizes = dataclasses.replace(SIZES, interactions=max(SIZES.interactions, *given.batches))
        data = made_up.ranking_data(sizes)
        for dtype, speed in (("float32", gpu.peak.flops), ("bfloat16", 2 * gpu.peak.flops)):
            for batch in given.batches:
                lower = functools.partial(ranker, data, batch, dtype)
                cases.append((f"ranker, {dtype}, {batch:,}", lower, batch, "examples", speed))
    if given.images:
        encoder = ImageEncoder(ImageEncoderConfig(**IMAGE), rngs=HostDraws(0))
        encoder = FoldedImageEncoder(encoder, fast=False)
        for name, call in (("content", our_resnet.content), ("and style", our_resnet.both)):
            lower = functools.partial(encode, encoder, call, given.images)
            case = f"ResNet101, {name}"
            cases.append((case, lower, given.images, "images", 2 * gpu.peak.flops))
    results = []
    for case, lower, things, unit, speed in cases:
        results.append(counted(case, lower, things, unit, given.gpu, speed))
        report.emit(results[-1])
    report.write(results, given.out)
    report.show(f"What the published speeds of {gpu.name} allow", results, COLUMNS)
    return results


if __name__ == "__main__":
    main()
