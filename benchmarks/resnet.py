"""How fast the image encoder's ResNet is, against timm's in torch in the same run.

    python -m benchmarks.resnet                         (make bench-resnet)
    python -m benchmarks.resnet --parts inference --rounds 21
    python -m benchmarks.resnet --batch_size 256 --train_batch_size 256       (on a GPU)

Parts:

    inference   pooled features of ResNet101: umair_jax.models.folding against the network before
                folding (peer "unfolded") and timm's (with pip install torch timm, see the `parity`
                extra)
    style       the same with the style head, against without; and the share that half of each Gram
                matrix, which is symmetric, would take at the rate of one large float32 product
    train       one step: binary cross-entropy over 1,000 tags, SGD with momentum
    decode      drawings of the built-in catalogue to squares, against Pillow without our checks

Rounds take turns. Without torch there are no such peers, and the results say so. On a CPU
everything is float32; on a GPU bfloat16, the batches are larger, torch.compile is a peer, and the
share of the card's peak is given (of the FLOPs that the network needs, counted by XLA before any
optimisation; Winograd's algorithm on CPUs does with fewer).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks import machine, our_resnet, report
from benchmarks.rounds import Contender, take_turns
from benchmarks.timm_resnet import Peers
from umair_jax.data.images import load_square
from umair_jax.data.sources.openclipart import catalogue
from umair_jax.models.folding import FoldedImageEncoder
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from umair_jax.models.initialise import HostDraws

PARTS = ("inference", "style", "train", "decode")
# Dense bfloat16 peaks that the makers state, TFLOP/s.
PEAK_TFLOPS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "L4": 121, "T4": 65}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        image: The network.
        batch_size: Images a call of inference.
        train_batch_size: Images a step.
        tags: Width of the head in training.
        compiled: Whether torch.compile is a peer.
        pictures: Drawings that a round of decoding takes; 0 = all.
        rounds: Rounds of each contender.
        round_seconds: Length of a round, about.
        peak_tflops: The accelerator's peak; None = not known, or a CPU.
    """

    image: ImageEncoderConfig
    batch_size: int
    train_batch_size: int
    tags: int
    compiled: bool
    pictures: int
    rounds: int
    round_seconds: float
    peak_tflops: float | None

    def contender(self, name: str, dispatch: Callable, wait: Callable, images: int) -> Contender:
        """A piece of work, compiled, for rounds of this length."""
        machine.progress(f"  compiling {name}")
        return Contender(name, dispatch, wait, images, self.round_seconds)


def run(settings: Settings, parts: Sequence[str]) -> list[dict[str, Any]]:
    """Measures the parts, prints and returns one result for each peer."""
    peers = Peers(settings.image.depth, settings.image.dtype == "bfloat16", settings.tags)
    about = machine.describe() | {
        "device": jax.devices()[0].device_kind,
        "threads": os.cpu_count(),
        "dtype": settings.image.dtype,
        "image_size": settings.image.image_size,
        "network": f"ResNet{settings.image.depth}, base width {settings.image.base_width}",
    }
    about |= {"torch": peers.missing} if peers.missing else peers.about
    if peers.missing:
        machine.progress(f"no peer in torch: {peers.missing}")
    results = []
    for part in parts:
        machine.progress(part)
        measure = {"inference": inference, "style": style, "train": train, "decode": decode}[part]
        for row in measure(settings, peers):
            results.append({"bench": "resnet", "part": part} | row | about)
            report.emit(results[-1])
    return results


def inference(settings: Settings, peers: Peers) -> list[dict[str, Any]]:
    """Pooled features, no head."""
    encoder = ImageEncoder(settings.image, rngs=HostDraws(0))
    images = _images(settings, settings.batch_size)
    ours = our_resnet.compiled(FoldedImageEncoder(encoder), our_resnet.content, images)
    plain = our_resnet.compiled(encoder, our_resnet.content, images)
    batch = len(images)
    folded = settings.contender("ours", ours.dispatch, jax.block_until_ready, batch)
    unfolded = settings.contender("unfolded", plain.dispatch, jax.block_until_ready, batch)
    rivals = _torch_rivals(
        settings, peers, batch, lambda options: peers.inference(images, **options)
    )
    rivals = [(unfolded, plain.memory_bytes), *rivals]
    take_turns([folded, *(rival for rival, _ in rivals)], settings.rounds)
    extra = {"flops_per_image": plain.flops / batch, "memory_bytes": ours.memory_bytes}
    return [
        _row(settings, folded, rival, extra | {"peer_memory_bytes": memory})
        for rival, memory in rivals
    ]


def style(settings: Settings, peers: Peers) -> list[dict[str, Any]]:
    """Both vectors against the content vector alone, folded and not."""
    encoder = ImageEncoder(settings.image, rngs=HostDraws(0))
    images = _images(settings, settings.batch_size)
    results = []
    for name, network in (("folded", FoldedImageEncoder(encoder)), ("unfolded", encoder)):
        pair, flops = [], []
        for what in (our_resnet.both, our_resnet.content):
            work = our_resnet.compiled(network, what, images)
            label = f"{name}, {'with style' if what is our_resnet.both else 'content alone'}"
            pair.append(
                settings.contender(label, work.dispatch, jax.block_until_ready, len(images))
            )
            flops.append(work.flops)
        take_turns(pair, settings.rounds)
        peak = machine.MatrixPeak(2048)
        for _ in range(settings.rounds):
            peak.measure()
        both, content = pair
        extra = {
            "style_share": both.seconds / content.seconds - 1,
            "style_share_of_fastest": both.fastest_seconds / content.fastest_seconds - 1,
            "style_share_of_cpu": both.cpu_seconds / content.cpu_seconds - 1,
        }
        if settings.image.dtype == "float32":
            least = len(images) * _half_gram_flops(settings.image) / (1e9 * peak.gflops)
            extra |= {
                "matrix_peak_gflops_per_second": peak.gflops,
                "style_share_at_peak": least / content.seconds,
            }
        if name == "unfolded":
            extra["style_share_of_flops"] = flops[0] / flops[1] - 1
        results.append(_row(settings, both, content, extra))
    return results


def _half_gram_flops(image: ImageEncoderConfig) -> float:
    """Of the upper triangles of the Gram matrices of an image's first stage."""
    channels, blocks = image.resnet.channels(1), image.blocks_read[1]
    return blocks * channels * (channels + 1) * (image.image_size // 4) ** 2


def train(settings: Settings, peers: Peers) -> list[dict[str, Any]]:
    """One step on a batch that stays on the device."""
    images = _images(settings, settings.train_batch_size)
    labels = np.random.default_rng(1).random((len(images), settings.tags)) < 0.01
    labels = labels.astype(np.float32)
    ours = our_resnet.train_step(settings.image, images, labels)
    batch = len(images)
    step = settings.contender("ours", ours.dispatch, jax.block_until_ready, batch)
    rivals = _torch_rivals(
        settings, peers, batch, lambda options: peers.train_step(images, labels, **options)
    )
    take_turns([step, *(rival for rival, _ in rivals)], settings.rounds)
    extra = {"flops_per_image": ours.flops / batch, "memory_bytes": ours.memory_bytes}
    return [
        _row(settings, step, rival, extra | {"peer_memory_bytes": memory})
        for rival, memory in rivals or [(None, None)]
    ]


def _torch_rivals(
    settings: Settings, peers: Peers, batch: int, build: Callable[[dict[str, bool]], Callable]
) -> list[tuple[Contender, int | None]]:
    """Contenders in torch with the memory of the GPU that each needs; without torch none."""
    if peers.missing:
        return []
    options = [
        ("timm, channels first", {"channels_last": False, "compiled": False}),
        ("timm, channels last", {"channels_last": True, "compiled": False}),
    ]
    if settings.compiled:
        compiled = {"channels_last": True, "compiled": True}
        options.append(("timm, channels last, torch.compile", compiled))
    found = []
    for name, option in options:
        work = build(option)
        try:
            rival = settings.contender(name, work, peers.wait, batch)
        except Exception as error:
            # torch.compile needs compilers of its own, which not every machine has.
            if not option["compiled"]:
                raise
            machine.progress(f"{name} does not run here: {type(error).__name__}: {error}")
        else:
            found.append((rival, peers.peak_bytes(work)))
    return found


def decode(settings: Settings, peers: Peers) -> list[dict[str, Any]]:
    """Encoded drawings to squares, by one thread and by two."""
    size = settings.image.image_size
    data = catalogue()["image"].to_pylist()[: settings.pictures or None]
    results = []
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:

            def through(call: Callable[[bytes], object], pool: Any = pool) -> Callable[[], object]:
                return lambda: list(pool.map(call, data))

            def wait(result: object) -> None:
                """The list is complete when it is returned."""

            ours = settings.contender(
                "ours", through(lambda d: load_square(d, size)), wait, len(data)
            )
            bare = through(functools.partial(_squeezed, size=size))
            rival = settings.contender("Pillow: open, convert, resize", bare, wait, len(data))
            take_turns([ours, rival], settings.rounds)
        results.append(_row(settings, ours, rival, {"decode_threads": threads}))
    return results


def _squeezed(data: bytes, size: int) -> np.ndarray:
    """What a data loader does that trusts its pictures."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _images(settings: Settings, batch: int) -> np.ndarray:
    size = settings.image.image_size
    return np.random.default_rng(0).random((batch, size, size, 3), np.float32)


def _row(
    settings: Settings, ours: Contender, rival: Contender | None, extra: dict[str, Any]
) -> dict[str, Any]:
    peer = None if rival is None else rival.rate
    row = {
        "case": f"{ours.name if rival is None else rival.name}, batch {ours.items}",
        "ours": ours.rate,
        "peer": peer,
        "ratio": None if peer is None else ours.rate / peer,
        "unit": "images/s",
        "peer_name": "none in this run" if rival is None else rival.name,
        "batch_size": ours.items,
        "call_ms": 1e3 * ours.seconds,
        "fastest_call_ms": 1e3 * ours.fastest_seconds,
        "cpu_seconds_per_call": ours.cpu_seconds,
        "foreign_cpu_share": ours.usage.foreign_share,
    }
    if rival is not None:
        row |= {
            "peer_call_ms": 1e3 * rival.seconds,
            "peer_fastest_call_ms": 1e3 * rival.fastest_seconds,
            "peer_cpu_seconds_per_call": rival.cpu_seconds,
            "peer_foreign_cpu_share": rival.usage.foreign_share,
        }
    if settings.peak_tflops and "flops_per_image" in extra:
        flops = extra["flops_per_image"] * ours.rate
        row |= {"peak_tflops": settings.peak_tflops, "mfu": flops / settings.peak_tflops / 1e12}
    return row | extra


def stated_peak(kind: str) -> float | None:
    """The stated dense bfloat16 peak of a card by its name, TFLOP/s; None = not known here."""
    for name, peak in PEAK_TFLOPS.items():
        if set(name.split()) <= set(re.split(r"[\s-]", kind)):
            return float(peak)
    return None


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parses the options, measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--depth", type=int, default=101, help="50, 101 or 152")
    parser.add_argument("--base_width", type=int, default=64, help="timm's is 64")
    parser.add_argument("--image_size", type=int, default=224, help="pixels")
    parser.add_argument("--batch_size", type=int, default=0, help="0: 8, on a GPU 256")
    parser.add_argument("--train_batch_size", type=int, default=0, help="0: 8, on a GPU 256")
    parser.add_argument("--tags", type=int, default=1000, help="width of the head in training")
    parser.add_argument("--dtype", default="", help="float32, on a GPU bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile on a CPU as well")
    parser.add_argument("--pictures", type=int, default=500, help="to decode; 0 = all")
    parser.add_argument("--peak_tflops", type=float, default=0, help="0: by the card's name")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each contender")
    parser.add_argument("--round_seconds", type=float, default=0.7, help="length of a round")
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS / "resnet.jsonl", help="file to write"
    )
    options = parser.parse_args(argv)
    # Or JAX would take three quarters of a GPU's memory before torch comes.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    device = jax.devices()[0]
    gpu = device.platform == "gpu"
    settings = Settings(
        image=ImageEncoderConfig(
            depth=options.depth,
            base_width=options.base_width,
            image_size=options.image_size,
            dtype=options.dtype or ("bfloat16" if gpu else "float32"),
        ),
        batch_size=options.batch_size or (256 if gpu else 8),
        train_batch_size=options.train_batch_size or (256 if gpu else 8),
        tags=options.tags,
        compiled=options.compile or gpu,
        pictures=options.pictures,
        rounds=options.rounds,
        round_seconds=options.round_seconds,
        peak_tflops=options.peak_tflops or (stated_peak(device.device_kind) if gpu else None),
    )
    results = run(settings, options.parts)
    report.write(results, options.out)
    report.show(
        "ResNet, images a second",
        results,
        {
            "part": "part",
            "case": "against",
            "ours": "ours",
            "peer": "peer",
            "ratio": "ratio",
            "call_ms": "ours, ms",
            "peer_call_ms": "peer, ms",
            "style_share": "style share",
            "style_share_at_peak": "at peak",
            "mfu": "MFU",
            "foreign_cpu_share": "foreign CPU",
        },
    )
    return results


if __name__ == "__main__":
    main()
