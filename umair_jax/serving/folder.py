"""A folder from which pairs are scored without this package: programs, weights, users, items."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32
from pyarrow import parquet

from umair_jax.data.feature_bank import FeatureBank
from umair_jax.data.schema import Schema, Side
from umair_jax.interop.files import new_folder
from umair_jax.models import weights
from umair_jax.serving import sides
from umair_jax.serving.stablehlo import BATCH, Exported

FORMAT_VERSION = 1
SIGNATURE, WEIGHTS, CATALOGUE = "signature.json", "weights.safetensors", "items.parquet"
USERS, ITEMS, IDS, PROGRAM = "users", "items", "id.npy", ".stablehlo"
CONFIG = "config_sha256"


def check(folder: Path, config: str) -> None:
    """Makes sure that a folder can take an export.

    Args:
        folder: New, empty, or an earlier export of the same run, which will be replaced.
        config: Digest of the run's config.

    Raises:
        ValueError: It holds something else.
    """
    advice = "name another --out, or remove it first"
    if folder.is_dir():
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    elif folder.exists():
        raise ValueError(f"{folder}: got a file; expected a folder; {advice}")
    else:
        found = set()
    if not found:
        return
    before = _signature(folder)
    other = sorted(found - _files(before))
    if other:
        named = ", ".join(other[:3]) + (" and more" if len(other) > 3 else "")
        raise ValueError(
            f"{folder}: got {named}; expected a new or empty folder, or an earlier export; {advice}"
        )
    if before.get(CONFIG) != config:
        raise ValueError(
            f"{folder}: got the export of a run with another config; expected one of this run, "
            f"which is replaced; {advice}"
        )


def write(
    folder: Path,
    facts: Mapping[str, Any],
    programs: Mapping[str, Exported],
    arrays: Mapping[str, np.ndarray],
    users: sides.Side,
    items: sides.Side,
    bank: FeatureBank,
) -> dict[str, int]:
    """Writes the folder, all or nothing; what `check` let pass is replaced.

    Args:
        folder: Where to.
        facts: What signature.json begins with.
        programs: By name.
        arrays: The weights by name.
        users: All users.
        items: All items.
        bank: The items' vectors as the encoders made them, for items.parquet.

    Returns:
        Bytes of every file at the top and of every folder in it.
    """
    signature = {
        "format_version": FORMAT_VERSION,
        **facts,
        "programs": {name: _described(program) for name, program in programs.items()},
        USERS: {"count": len(users.ids) - 1, "arrays": _shapes(users.arrays)},
        ITEMS: {"count": len(items.ids) - 1, "arrays": _shapes(items.arrays)},
        "weights": {name: _shape(array) for name, array in arrays.items()},
    }
    fresh = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(fresh) as partial:
        for name, program in programs.items():
            (partial / (name + PROGRAM)).write_bytes(program.blob)
        weights.write(arrays, partial / WEIGHTS)
        for name, side in {USERS: users, ITEMS: items}.items():
            (partial / name).mkdir()
            np.save(partial / name / IDS, np.asarray(side.ids, np.str_))
            for key, array in side.arrays.items():
                np.save(partial / name / f"{key}.npy", array)
        parquet.write_table(catalogue(items.ids, bank), partial / CATALOGUE)
        text = json.dumps(signature, indent=1, ensure_ascii=False)
        (partial / SIGNATURE).write_text(text + "\n", "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(fresh, folder)
    return {
        path.name: sum(f.stat().st_size for f in ([path] if path.is_file() else path.iterdir()))
        for path in sorted(folder.iterdir())
    }


def catalogue(ids: Any, bank: FeatureBank) -> pa.Table:
    """Ids, vectors as lists of one length, and which of them mean something; without row 0."""
    columns: dict[str, Any] = {"illust_id": pa.array(ids[1:], pa.string())}
    for name in ("content", "style", "text"):
        columns[name] = _lists(getattr(bank, name)[1:])
    columns["has_image"], columns["has_text"] = bank.has_image[1:], bank.has_text[1:]
    return pa.table(columns)


def fields(schema: Schema) -> list[dict[str, Any]]:
    """How values become rows: row = first row of the field + local index, 0 = unknown.

    For each sparse field: side, place among the columns of "embedding_rows" and "wide_rows", kind,
    column and position of the value, size and boundaries, first rows in both tables.
    """
    embedding, wide = schema.embedding_layout().offsets, schema.wide_layout().offsets
    return [
        {
            "name": field.name,
            "side": side.value,
            "place": place,
            "kind": field.kind.value,
            "column": field.column,
            "position": field.position,
            "size": field.size,
            "boundaries": field.boundaries,
            "first_embedding_row": embedding[field.table],
            "first_wide_row": wide[field.name],
        }
        for side in (Side.USER, Side.ITEM)
        for place, field in enumerate(schema.sparse(side))
    ]


def _lists(vectors: Float32[np.ndarray, "N D"]) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def _shape(array: Any) -> dict[str, Any]:
    # The one open dimension prints as its name.
    shape = [size if isinstance(size, int) else BATCH for size in array.shape]
    return {"shape": shape, "dtype": str(array.dtype)}


def _shapes(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _shape(array) for name, array in arrays.items()}


def _described(program: Exported) -> dict[str, Any]:
    return {
        "inputs": {name: _shapes(side) for name, side in program.inputs.items()},
        "outputs": _shapes(program.outputs),
        "calling_convention": program.calling_convention,
        "weights": program.weights,
    }


def _signature(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / SIGNATURE).read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) and "format_version" in found else {}


def _files(signature: Mapping[str, Any]) -> set[str]:
    """The files of the export that a signature describes."""
    if not signature:
        return set()
    found = {SIGNATURE, WEIGHTS, CATALOGUE}
    found |= {name + PROGRAM for name in signature["programs"]}
    for side in (USERS, ITEMS):
        found |= {f"{side}/{IDS}", *(f"{side}/{name}.npy" for name in signature[side]["arrays"])}
    return found
