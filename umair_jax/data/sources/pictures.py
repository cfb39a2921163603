"""Finds the pictures of a user's own items, and never leaves their folder."""

from __future__ import annotations

import functools
import os
import stat
from pathlib import Path

import xxhash

from umair_jax.data.images import LARGEST_IMAGE_BYTES
from umair_jax.data.report import Report

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
)  # fmt: skip


class Pictures:
    """The pictures of a folder, by file name or by item.

    Args:
        folder: The folder; it may be missing, then no item has a picture.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def fingerprint(self) -> str:
        """Changes with the name, size or modification time of any file."""
        digest = xxhash.xxh3_128()
        for path, _, files in sorted(os.walk(self.folder)):
            for name in sorted(files):
                place = os.path.join(path, name)
                try:
                    facts = os.stat(place)
                except OSError:
                    continue  # a link to nothing
                entry = (os.path.relpath(place, self.folder), facts.st_size, facts.st_mtime_ns)
                digest.update(repr(entry).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def find(self, illust_id: str, name: str, file: str, row: int, report: Report) -> bytes | None:
        """Reads an item's picture.

        Args:
            illust_id: Its id: without a name, `<illust_id>.*` is looked for.
            name: A file name, which may lead into a folder within; empty if there is none.
            file: The table that names it, for the report.
            row: The row there.
            report: Where problems are counted.

        Returns:
            The encoded picture, or None where there is none that may be used.
        """
        if not name:
            names = self._by_stem.get(illust_id, [])
            if not names:
                report.add("no_image", file, row, "illust_id", illust_id)
                return None
            if len(names) > 1:
                report.add("ambiguous_image", file, row, "illust_id", ", ".join(names))
            name = names[0]
        problem, value, image = self._read(name)
        if problem:
            report.add(problem, file, row, "image", value)
        return image

    def _read(self, name: str) -> tuple[str, str, bytes | None]:
        """The kind of problem, what to show of it, and the picture."""
        try:
            place = os.path.realpath(os.path.join(self._root, name))
            if os.path.commonpath([self._root, place]) != self._root:
                return "image_outside", name, None
            facts = os.stat(place)
            if not stat.S_ISREG(facts.st_mode):
                return "image_not_found", f"{name} (no file)", None
            if facts.st_size > LARGEST_IMAGE_BYTES:
                return "image_too_large", f"{name} ({facts.st_size} bytes)", None
            return "", "", Path(place).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a name with a null character
            reason = getattr(error, "strerror", None) or str(error)
            reason = reason if self.folder.is_dir() else f"no folder {self.folder.name}/"
            return "image_not_found", f"{name} ({reason})", None

    @functools.cached_property
    def _root(self) -> str:
        return os.path.realpath(self.folder)

    @functools.cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        if self.folder.is_dir():
            for name in sorted(os.listdir(self.folder)):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES:
                    names.setdefault(stem, []).append(name)
        return names
