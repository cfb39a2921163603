"""Indices of items' vectors for approximate search, by packages that others serve with."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from umair_jax.models.layers import check_choice

# Kind of index -> the module that makes it, and the file that it is written to.
KINDS = {"usearch": ("usearch", "items.usearch"), "faiss": ("faiss", "items.faiss")}


def require(kind: str) -> None:
    """Makes sure that the package of an index is installed.

    Raises:
        ValueError: An unknown kind, or its package is missing.
    """
    check_choice("index", kind, tuple(KINDS))
    if importlib.util.find_spec(KINDS[kind][0]) is None:
        raise ValueError(
            f"index: got {kind}, whose package is not installed; expected it to be; "
            'pip install -e ".[index]"'
        )


def write(kind: str, vectors: Float32[np.ndarray, "N1 D"], folder: Path) -> Path:
    """Writes an index of all rows but the placeholder; the largest inner product is the best.

    Args:
        kind: "usearch" (a graph, HNSW) or "faiss" (exact, flat).
        vectors: Of the items; row 0 is left out. Keys of the index are the row numbers.
        folder: Where the file goes.

    Returns:
        The file, for the package's own reader.

    Raises:
        ValueError: An unknown kind, or its package is missing.
    """
    require(kind)
    path = Path(folder) / KINDS[kind][1]
    partial = path.with_name(f"{path.name}.tmp")
    keys = np.arange(1, len(vectors), dtype=np.int64)
    {"usearch": _usearch, "faiss": _faiss}[kind](keys, vectors[1:], str(partial))
    os.replace(partial, path)
    return path


def _usearch(keys: np.ndarray, vectors: np.ndarray, path: str) -> None:
    from usearch.index import Index  # pyright: ignore[reportMissingImports]

    index: Any = Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
    index.add(keys.astype(np.uint64), vectors)
    index.save(path)


def _faiss(keys: np.ndarray, vectors: np.ndarray, path: str) -> None:
    import faiss  # pyright: ignore[reportMissingImports]

    flat: Any = faiss.IndexFlatIP(vectors.shape[1])
    index: Any = faiss.IndexIDMap2(flat)
    index.add_with_ids(np.ascontiguousarray(vectors), keys)
    faiss.write_index(index, path)
