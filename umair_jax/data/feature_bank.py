"""The feature bank: every item's content, style and text vectors, on disk and in memory."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
STORE_DTYPES = {"float32": np.float32, "float16": np.float16}
_VECTORS = ("content", "style", "text")
_FLAGS = ("has_image", "has_text")


@dataclasses.dataclass(frozen=True)
class FeatureBank:
    """Vectors of N items; row 0 is the unknown item.

    Attributes:
        content: What the pictures show; zeros where there is no usable image.
        style: How they are painted; zeros where there is no usable image.
        text: Tags and title; zeros where there is no text.
        has_image: Whether content and style mean anything.
        has_text: Whether text means anything.
        manifest: What made the bank, as in manifest.json.
    """

    content: Float32[np.ndarray, "N1 C"]
    style: Float32[np.ndarray, "N1 S"]
    text: Float32[np.ndarray, "N1 T"]
    has_image: Bool[np.ndarray, "N1"]
    has_text: Bool[np.ndarray, "N1"]
    manifest: Mapping[str, Any]

    @property
    def items(self) -> int:
        """Number of items, without row 0."""
        return len(self.content) - 1

    def present(self, name: str) -> Bool[np.ndarray, "N1"]:
        """Whether the vectors "content", "style" or "text" mean anything, by item."""
        return self.has_text if name == "text" else self.has_image

    @property
    def trained(self) -> bool:
        """Whether both encoders had trained weights."""
        return bool(self.manifest["trained"])


def blank(items: int, content: int, style: int, text: int) -> FeatureBank:
    """A bank of zeros, for the shapes of what is made from one.

    Args:
        items: How many, without row 0.
        content: Width of these vectors.
        style: The same.
        text: The same.
    """
    widths = {"content": content, "style": style, "text": text}
    vectors = {name: np.zeros((items + 1, width), np.float32) for name, width in widths.items()}
    there = np.arange(items + 1) > 0
    return FeatureBank(**vectors, has_image=there, has_text=there, manifest={"trained": False})


@dataclasses.dataclass(frozen=True)
class Shard:
    """Consecutive rows of a bank.

    Attributes:
        start: First row.
        arrays: "content", "style", "text" (float32), "has_image", "has_text" (bool), by row.
        bad_images: (row, reason) of images that are there but cannot be used.
        counts: Counted facts of these rows, such as missing images or [UNK] tokens.
    """

    start: int
    arrays: Mapping[str, np.ndarray]
    bad_images: tuple[tuple[int, str], ...] = ()
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)


def shard_path(bank_dir: str | os.PathLike[str], index: int) -> Path:
    """File of one shard."""
    return Path(bank_dir) / f"shard-{index:05d}.safetensors"


def write_shard(
    bank_dir: str | os.PathLike[str], index: int, shard: Shard, key: str, dtype: str = "float32"
) -> None:
    """Writes one shard, all or nothing.

    Args:
        bank_dir: The bank's folder.
        index: Number of the shard.
        shard: Its rows.
        key: Digest of everything that determines the vectors: a shard with another key is
            not taken for this bank's.
        dtype: "float32" or "float16", of the vectors on disk.

    Raises:
        ValueError: A vector is not finite, or does not fit into float16.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in shard.arrays.items()}
    for name in _VECTORS:
        with np.errstate(over="ignore"):
            arrays[name] = arrays[name].astype(STORE_DTYPES[dtype])
        finite = np.isfinite(arrays[name]).all(axis=1)
        if not finite.all():
            row = shard.start + int(np.argmin(finite))
            raise ValueError(
                f"{name} vector of row {row}: got a value that is not finite in {dtype}; "
                "expected finite values. Check the encoder's weights, or store float32."
            )
    # One entry only: safetensors writes several in random order, and equal shards should be
    # equal files.
    facts = {
        "key": key,
        "start": shard.start,
        "bad_images": shard.bad_images,
        "counts": dict(shard.counts),
    }
    metadata = {"shard": json.dumps(facts)}
    path = shard_path(bank_dir, index)
    partial = path.with_suffix(".partial")
    # Not save_file, which hides the file from other users of a shared folder.
    partial.write_bytes(save(arrays, metadata=metadata))
    os.replace(partial, path)


def read_shard(bank_dir: str | os.PathLike[str], index: int, key: str) -> Shard | None:
    """Reads one shard back; None where it is missing, broken or made with another key."""
    path = shard_path(bank_dir, index)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get("shard", "{}"))
            if facts.get("key") != key:
                return None
            arrays = {name: file.get_tensor(name) for name in (*_VECTORS, *_FLAGS)}
    except SafetensorError:
        return None
    bad = tuple((int(row), str(reason)) for row, reason in facts["bad_images"])
    return Shard(facts["start"], arrays, bad, facts["counts"])


def read_manifest(bank_dir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The manifest of a finished bank; None where there is none, or none that can be read."""
    try:
        return json.loads((Path(bank_dir) / MANIFEST).read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def write_manifest(bank_dir: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    """Writes manifest.json, all or nothing: its presence says that the bank is finished."""
    path = Path(bank_dir) / MANIFEST
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(partial, path)


def load(bank_dir: str | os.PathLike[str]) -> FeatureBank:
    """Reads a finished bank.

    Raises:
        ValueError: There is no finished bank, it is of another format version, or a shard is
            missing or broken.
    """
    manifest = read_manifest(bank_dir)
    if manifest is None:
        raise ValueError(
            f"feature bank: got no {MANIFEST} in {str(bank_dir)!r}, expected a finished bank; "
            "run umair_jax.extract first."
        )
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"feature bank {str(bank_dir)!r}: got format version "
            f"{manifest.get('format_version')}, expected {FORMAT_VERSION}; extract again."
        )
    rows = manifest["items"] + 1
    widths = [manifest["sizes"][name] for name in _VECTORS]
    vectors = [np.zeros((rows, width), np.float32) for width in widths]
    flags = [np.zeros(rows, bool) for _ in _FLAGS]
    for index in range(manifest["shards"]):
        shard = read_shard(bank_dir, index, manifest["key"])
        if shard is None:
            raise ValueError(
                f"feature bank: {shard_path(bank_dir, index)} is missing, broken or of another "
                "bank; expected every shard of the manifest. Extract again: only what is missing "
                "is computed."
            )
        for name, target in zip((*_VECTORS, *_FLAGS), (*vectors, *flags), strict=True):
            source = shard.arrays[name]
            target[shard.start : shard.start + len(source)] = source
    return FeatureBank(*vectors, *flags, manifest=manifest)
