"""Every item once through the encoders.

    python -m umair_jax.extract --data_dir=DATA --bank_dir=BANK [--config=CONFIG.py]

Pictures become content and style vectors, tags and titles become text vectors; training then
gathers rows of this feature bank and never decodes a picture again. A finished bank is recognised
by its manifest and left alone; an interrupted one goes on at the first missing shard.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags
from rich.console import Console

from umair_jax import encoding, hosts, results, settings
from umair_jax.data import feature_bank
from umair_jax.data.feature_bank import FeatureBank, Shard
from umair_jax.encoding import Catalogue, Encoders, ExtractConfig, text_model
from umair_jax.encoding.images import Encoded
from umair_jax.encoding.pair import pictures_of
from umair_jax.encoding.progress import EncodingProgress
from umair_jax.hosts import HostsConfig, Team
from umair_jax.memory import keep_freed_memory

ENCODER_RECORD = "encoders.json"
# What summary.json takes from the manifest.
SUMMARISED = (
    *("items", "usable_images", "missing_images", "bad_images", "texts", "unknown_tokens"),
    *("truncated_texts", "vocabulary", "sizes", "trained_image", "trained_text", "seconds"),
)
# Settings that cannot change a single vector: another value does not mean another bank.
_INDIFFERENT = (
    *("decode_threads", "decode_workers", "max_bad_share"),
    *("image_weights", "text_weights"),
)


def extract(
    dataset: Catalogue,
    config: ExtractConfig,
    bank_dir: str | os.PathLike[str],
    *,
    console: Console | None = None,
) -> FeatureBank:
    """Makes the feature bank of a data set, or reads it if it is there.

    With several processes each makes a share of the shards, and all return the whole bank. Those
    that see the same folder share the work; where hosts have disks of their own, each makes all.

    Args:
        dataset: Items with texts and pictures; rows from 1.
        config: The encoders and how they run.
        bank_dir: Folder of the bank. A bank made from other items or another configuration
            is replaced.
        console: Where progress and notices go; None = the terminal's standard error.

    Raises:
        ValueError: More pictures than `max_bad_share` cannot be decoded; weights do not fit; hosts
            with disks of their own have made different encoders.
    """
    console = console or Console(stderr=True)
    folder = Path(bank_dir)
    key = bank_key(dataset.catalogue_fingerprint, config)
    bank = _finished(folder, key, console)
    if all(hosts.gather("finished banks", "yes" if bank else "")):
        assert bank is not None
        return bank
    began = time.monotonic()
    rows = range(1, len(dataset.items.title))
    team = hosts.team(folder)
    if team.first:
        _prepare(dataset, rows, config, folder, key, console)
    hosts.barrier("prepare the encoders")
    encoders = encoding.load(folder, config)
    hosts.agree("encoders", encoders.digest())
    _fill(dataset, rows, encoders, folder, key, team, console)
    hosts.barrier("encode the drawings")
    if team.first:
        manifest = _manifest(dataset, config, encoders, folder, key, time.monotonic() - began)
        feature_bank.write_manifest(folder, manifest)
        results.write(folder, {"task": "extract", **{name: manifest[name] for name in SUMMARISED}})
        _report(manifest, console)
    hosts.barrier("finish the bank")
    return feature_bank.load(folder)


def _finished(folder: Path, key: str, console: Console) -> FeatureBank | None:
    """The bank of this key, if it is there and whole."""
    manifest = feature_bank.read_manifest(folder)
    if not manifest or manifest.get("key") != key:
        return None
    try:
        return feature_bank.load(folder)
    except ValueError as error:
        console.print(f"The feature bank is incomplete and is repaired: {error}", markup=False)
    return None


def bank_key(fingerprint: str, config: ExtractConfig) -> str:
    """Digest of everything that determines a bank: items, settings, weights, format."""
    settings = dataclasses.asdict(config)
    for name in _INDIFFERENT:
        del settings[name]
    image, text = config.image_weights_file, config.text_weights
    files = {
        "image_weights": hashlib.sha256(Path(image).read_bytes()).hexdigest() if image else "",
        "text_weights": text_model.digest(text) if text else "",
    }
    whole = [feature_bank.FORMAT_VERSION, fingerprint, settings, files]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def bank_folder(root: str | os.PathLike[str], key: str) -> Path:
    """Where a job keeps the bank of a key, under its folder of data."""
    return Path(root) / "banks" / key[:16]


def _prepare(
    dataset: Catalogue,
    rows: Sequence[int],
    config: ExtractConfig,
    folder: Path,
    key: str,
    console: Console,
) -> None:
    """Leaves encoders of this key in the folder; removes what belongs to another bank."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / ENCODER_RECORD
    try:
        ready = json.loads(record.read_text("utf-8"))["key"] == key
    except (OSError, ValueError, KeyError):
        ready = False
    if ready and all((folder / name).is_file() for name in encoding.FILES):
        return
    stale = [folder / feature_bank.MANIFEST, record, *folder.glob("shard-*.safetensors")]
    for path in stale:
        path.unlink(missing_ok=True)
    if not config.image_weights:
        console.print(
            "[bold]Untrained image encoder:[/bold] random filters, BatchNorm statistics calibrated "
            f"on {min(config.calibration_images, len(rows)):,} pictures. Content and style vectors "
            "tell pictures apart but know nothing about drawings."
        )
    if not config.text_weights:
        console.print(
            "[bold]Untrained text encoder:[/bold] random word vectors; texts are close where they "
            "share words."
        )
    encoding.save(encoding.build(dataset, rows, config), folder)
    record.write_text(json.dumps({"key": key}) + "\n", "utf-8")


def _fill(
    dataset: Catalogue,
    rows: Sequence[int],
    encoders: Encoders,
    folder: Path,
    key: str,
    team: Team,
    console: Console,
) -> None:
    """Computes this process's missing shards."""
    config = encoders.config
    todo = []
    for index, start in enumerate(range(0, len(rows), config.shard_items)):
        mine = index % len(team.members) == team.index
        if mine and feature_bank.read_shard(folder, index, key) is None:
            todo.append((index, rows[start : start + config.shard_items]))
    with EncodingProgress(sum(len(part) for _, part in todo), console) as progress:
        # One stream over all shards, so that the next shard's pictures are decoded ahead too.
        batches = [b for _, part in todo for b in encoding.in_batches(part, config.image_batch)]
        encoded = encoders.pictures.encode(pictures_of(dataset), batches)
        for index, part in todo:
            mine = itertools.islice(encoded, -(-len(part) // config.image_batch))
            shard = _encode_shard(dataset, part, mine, encoders, progress)
            feature_bank.write_shard(folder, index, shard, key, config.store_dtype)


def _encode_shard(
    dataset: Catalogue,
    rows: Sequence[int],
    pictures: Iterable[Encoded],
    encoders: Encoders,
    progress: EncodingProgress,
) -> Shard:
    contents, styles, usable, bad, missing = [], [], [], [], 0
    for batch in pictures:
        contents.append(batch.content)
        styles.append(batch.style)
        usable.append(batch.decoded.usable)
        bad += batch.decoded.reasons
        missing += batch.decoded.missing
        progress.advance(len(batch.decoded.usable))
    texts = [encoding.item_text(dataset.items, row, encoders.config) for row in rows]
    has_text = np.array([bool(text) for text in texts])
    vectors, counts = encoders.encode_texts(texts)
    arrays = {
        "content": np.concatenate(contents),
        "style": np.concatenate(styles),
        "text": np.where(has_text[:, None], vectors, 0),
        "has_image": np.concatenate(usable),
        "has_text": has_text,
    }
    return Shard(rows[0], arrays, tuple(bad), {"missing_images": missing, **counts})


def _manifest(
    dataset: Catalogue,
    config: ExtractConfig,
    encoders: Encoders,
    folder: Path,
    key: str,
    seconds: float,
) -> dict[str, Any]:
    """Facts about the finished bank; the bad images of all shards are checked here."""
    items = len(dataset.items.title) - 1
    shards = -(-items // config.shard_items)
    bad: list[tuple[int, str]] = []
    totals = {"missing_images": 0, "unknown_tokens": 0, "truncated_texts": 0, "texts": 0}
    for index in range(shards):
        shard = feature_bank.read_shard(folder, index, key)
        if shard is None:
            raise ValueError(
                f"feature bank: {feature_bank.shard_path(folder, index)} is missing; expected "
                "every process to write its shards into the same folder."
            )
        bad += shard.bad_images
        totals["texts"] += int(shard.arrays["has_text"].sum())
        for name, count in shard.counts.items():
            totals[name] += count
    pictures = items - totals["missing_images"]
    if len(bad) > config.max_bad_share * max(pictures, 1):
        examples = "; ".join(f"row {row}: {reason}" for row, reason in bad[:5])
        raise ValueError(
            f"images: got {len(bad)} of {pictures} that cannot be decoded, expected at most a "
            f"share of {config.max_bad_share}. Mend the files or raise max_bad_share. {examples}"
        )
    trained_image, trained_text = bool(config.image_weights), bool(config.text_weights)
    return {
        "format_version": feature_bank.FORMAT_VERSION,
        "key": key,
        "encoder": encoders.digest(),
        "dataset": dataset.catalogue_fingerprint,
        "items": items,
        "shards": shards,
        "sizes": {
            "content": config.image.content_width,
            "style": config.image.style_width,
            "text": config.text.vector_width,
        },
        "dtype": config.store_dtype,
        "trained": trained_image and trained_text,
        "trained_image": trained_image,
        "trained_text": trained_text,
        "calibration_images": 0 if trained_image else min(config.calibration_images, items),
        "vocabulary": encoders.text.cfg.vocabulary,
        "usable_images": pictures - len(bad),
        **totals,
        "bad_images": len(bad),
        "bad_image_list": [{"row": row, "reason": reason} for row, reason in bad],
        "seconds": round(seconds, 1),
        "config": dataclasses.asdict(config),
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
    }


def _report(manifest: dict[str, Any], console: Console) -> None:
    console.print(
        f"Feature bank: {manifest['items']:,} items in {manifest['seconds']:.0f} s; "
        f"{manifest['usable_images']:,} images, {manifest['missing_images']:,} missing, "
        f"{manifest['bad_images']:,} broken; {manifest['texts']:,} texts, vocabulary "
        f"{manifest['vocabulary']:,}, {manifest['unknown_tokens']:,} unknown tokens, "
        f"{manifest['truncated_texts']:,} cut off."
    )
    for bad in manifest["bad_image_list"][:10]:
        console.print(f"  row {bad['row']}: {bad['reason']}", markup=False)


def main(argv: list[str]) -> None:
    """Extracts a prepared data set's feature bank."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}, expected flags only.")
    values = flags.FLAGS
    for name in ("data_dir", "bank_dir"):
        if not values[name].value:
            raise ValueError(f"--{name}: got nothing, expected a folder.")
    from umair_jax.data import store

    sections = values.config.to_dict() if values.config else {}
    hosts.start(settings.build(HostsConfig, sections.get("hosts", {}), "config.hosts"))
    config = settings.build(ExtractConfig, sections.get("extract", {}), "config.extract")
    extract(store.load(values.data_dir), config, values.bank_dir)


if __name__ == "__main__":
    # Here, not at import: other front doors call `extract` and have flags of the same names.
    flags.DEFINE_string("data_dir", None, "A data set made by umair_jax.prepare.")
    flags.DEFINE_string("bank_dir", None, "Folder of the feature bank.")
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Python file with get_config(); of its sections, extract and hosts are read.",
    )
    keep_freed_memory()
    settings.run_front_door(main)
