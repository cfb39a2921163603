"""What the text of a program that XLA compiled tells: traffic between devices, kernels."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

_COLLECTIVES = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"),
    *("ragged-all-to-all", "collective-broadcast"),
)
# `%name = f32[8,4]{1,0} all-gather(...)`, or a tuple of shapes; -done only waits for -start.
_LINE = re.compile(rf"= (\(?[^=]*?\)?) ({'|'.join(_COLLECTIVES)})(?:-start)?\(")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+)\w*\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%([\w.-]+) \(.*\{$")
_NO_KERNEL = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all"}
_WORKSPACE = ("s8", "u8")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One operation between devices.

    Attributes:
        kind: all-reduce, all-gather, ...
        size: Bytes of its result on each device.
    """

    kind: str
    size: int


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The kernels of a program, one after the other.

    Attributes:
        count: How many; the body of a loop counts once.
        size: Bytes that they read and write, as if nothing stayed in a cache from one to the next:
            operands, each once, and results; of arrays that rows are looked up in, or written to in
            place, those rows.
    """

    count: int
    size: int


def collectives(text: str) -> tuple[Collective, ...]:
    """The operations between devices."""
    return tuple(
        Collective(kind, sum(size for _, size in _arrays(shapes)))
        for shapes, kind in _LINE.findall(text)
    )


def kernels(text: str) -> Kernels:
    """The kernels of a program for GPUs, where each instruction that is left is one."""
    bodies = _computations(text)
    entry = bodies.get("ENTRY", [])
    sizes: dict[str, int] = {}
    count = total = 0
    for line in entry:
        found = _INSTRUCTION.match(line)
        if found is None:
            continue
        name, shapes, kind, rest = found.groups()
        results = _arrays(shapes)
        sizes[name] = sum(size for _, size in results)
        if kind in _NO_KERNEL or kind.endswith("-done"):
            continue
        called = re.search(r"calls=%([\w.-]+)", rest)
        body = "\n".join(bodies.get(called[1], ())) if called else line
        operands = dict.fromkeys(re.findall(r"%([\w.-]+)", rest.partition(")")[0]))
        count += 1
        total += _moved(kind, body, results, [sizes.get(operand, 0) for operand in operands])
    return Kernels(count, total)


def _moved(kind: str, body: str, results: list[tuple[str, int]], operands: list[int]) -> int:
    if kind == "custom-call":
        results = [pair for pair in results if pair[0] not in _WORKSPACE]
    written = [size for _, size in results]
    if " scatter(" in body or " dynamic-update-slice(" in body:
        for size in tuple(operands):
            if size in written:
                operands.remove(size)
                written.remove(size)
        return sum(written) + 2 * sum(operands)
    if " gather(" in body or " dynamic-slice(" in body:
        return sum(written) + sum(min(size, sum(written)) for size in operands)
    return sum(written) + sum(operands)


def _computations(text: str) -> dict[str, list[str]]:
    """Name -> lines; the one that the program starts with is called ENTRY."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head is not None:
            lines = []
            found["ENTRY" if line.startswith("ENTRY") else head[1]] = lines
        else:
            lines.append(line)
    return found


def _arrays(shapes: str) -> list[tuple[str, int]]:
    """Type and bytes of each array of a shape or of a tuple of shapes."""
    return [
        (dtype, int(np.prod([int(n) for n in axes.split(",") if n], dtype=int)) * _bytes(dtype))
        for dtype, axes in _SHAPE.findall(shapes)
    ]


def _bytes(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return 1 if bits is None else max(int(bits[0]) // 8, 1)
