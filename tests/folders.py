"""Small folders of a made-up user's data, for tests of the source and of prepare."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from umair_jax.data.report import Report
from umair_jax.data.sources.folder import Folder

START = 1_700_000_000


def picture(k=0, kind="PNG", size=(6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (k % 256, 80, 160)).save(buffer, kind)
    return buffer.getvalue()


def png_header(width, height) -> bytes:
    """A PNG that claims a size and holds hardly any pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0"))


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def small(folder: Path, items=12, users=5, rows=60, labels=True, seed=0, images=True) -> Path:
    """A clean folder: CSV tables and one PNG an item."""
    rng = np.random.default_rng(seed)
    lines = ["illust_id,title,artist,tags"]
    lines += [f"{k},title {k},artist {k % 3},red|t{k % 4}" for k in range(1, items + 1)]
    log = ["user_id,illust_id,timestamp" + (",label" if labels else "")]
    for k in range(rows):
        cells = [f"u{rng.integers(users)}", str(rng.integers(1, items + 1)), str(START + 60 * k)]
        log.append(",".join(cells + ([str(k % 2)] if labels else [])))
    files = {"items.csv": "\n".join(lines) + "\n", "interactions.csv": "\n".join(log) + "\n"}
    if images:
        files |= {f"images/{k}.png": picture(k) for k in range(1, items + 1)}
    return write(folder, files)


LOG = "user_id,illust_id,timestamp\nu,1,1700000000\n"


def folder_of(tmp_path, **files):
    """A folder with these tables, keys like items_csv; a plain log where none is given."""
    content = {name.replace("_", "."): text for name, text in files.items()}
    if not any(name.startswith("interactions") for name in content):
        content["interactions.csv"] = LOG
    return write(tmp_path, content)


def items_of(path):
    """All items, and the report."""
    report = Report()
    return list(Folder(path).items(report)), report


def log_of(path):
    """All readable rows of a log, the report, and the names of the users."""
    report = Report()
    columns = {name: [] for name in ("row", "user_id", "illust_id", "timestamp", "label")}
    names = []
    for piece in Folder(path).interactions(report):
        for name, column in columns.items():
            column.extend(getattr(piece, name).tolist())
        if piece.username is not None:
            names.extend(piece.username.to_pylist())
    return columns, report, names


def where(report, kind):
    """Files and rows of the examples of a kind."""
    return [(e.file, e.row) for e in report.examples.get(kind, [])]
