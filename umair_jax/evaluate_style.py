"""Measures what the image encoder's content and style vectors carry; see umair_jax/probes."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from umair_jax import pretrained, results, settings
from umair_jax.encoding import ExtractConfig
from umair_jax.models.image_encoder import ImageEncoderConfig
from umair_jax.models.weights import read_settings
from umair_jax.probes import figure, pictures, report
from umair_jax.probes.style import TRAINED, ProbeConfig, probe

BUILT_IN = "openclipart"
FIGURE, REPORT = "neighbours.png", "style_report.md"


def evaluate_style(
    config: ConfigDict,
    data: str,
    workdir: str | Path,
    options: ProbeConfig | None = None,
    weights: str = "",
    console: Console | None = None,
) -> dict[str, Any]:
    """Encodes labelled pictures, looks at nearest neighbours, writes what it finds.

    Args:
        config: Its section `extract` gives the encoder, its section `features` whether style
            vectors are taken as logarithms when they are standardised.
        data: A parquet file of concepts in several styles, or "openclipart": only the artists of
            the built-in drawings, which are looked at in any case.
        workdir: Where summary.json, the report and the figure go.
        options: What is measured; `log_style` is replaced by the config's.
        weights: Trained image encoder in place of the config's; "" = the config's. A file that
            says what it is for, as those of the image_tags job do, is taken at its word: its own
            heads are measured, whatever heads the config reads its network with.
        console: Where tables and progress go.

    Returns:
        The summary.

    Raises:
        ValueError: The data or the config cannot be used.
    """
    console = console or Console()
    began = time.monotonic()
    sections = config.to_dict()
    if "extract" not in sections:
        raise ValueError(
            f"config: got the sections {', '.join(sections)}; expected extract, as in "
            "configs/base.py; it says how pictures are encoded"
        )
    extract = settings.build(ExtractConfig, sections["extract"], "config.extract")
    weights = weights or extract.image_weights
    if weights:
        extract = _with_weights(extract, weights, console)
    log_style = bool(sections.get("features", {}).get("log_style", False))
    options = dataclasses.replace(options or ProbeConfig(), log_style=log_style)
    limit, seed = options.limit_concepts, options.seed
    sources = {}
    if data != BUILT_IN:
        sources[pictures.STYLES] = pictures.read_styles(data, limit, seed)
    try:
        sources[pictures.ARTISTS] = pictures.read_artists(limit, seed)
    except FileNotFoundError as error:
        if not sources:
            raise
        console.print(f"No artists: {error}")
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    found = {kind: probe(source, extract, options, console) for kind, source in sources.items()}

    first = next(iter(found.values()))
    figure.draw(first, seed).save(workdir / FIGURE, optimize=True)
    encoder = (
        f"weights of {extract.image_weights}"
        if first.main == TRAINED
        else f"untrained, BatchNorm calibrated on {extract.calibration_images} of the pictures"
    )
    about = {"data": data, "encoder": encoder, "seed": str(seed)}
    (workdir / REPORT).write_text(report.markdown(found, about, FIGURE), "utf-8")
    summary = {
        "task": "style",
        "data": data,
        "weights": extract.image_weights,
        "seed": seed,
        **report.summarise(found),
        "seconds": time.monotonic() - began,
    }
    results.write(workdir, summary)
    report.show(found, console)
    console.print(f"Encoder: {encoder}. Written to {workdir}: "
                  f"{results.SUMMARY}, {REPORT}, {FIGURE}")  # fmt: skip
    return summary


def _with_weights(config: ExtractConfig, path: str, console: Console) -> ExtractConfig:
    """The config with these weights, and with the network that they say they are for."""
    image = config.image
    recorded = read_settings(pretrained.image_encoder(path))
    given = {**dataclasses.asdict(image), **recorded}  # all settings or some
    image = settings.build(ImageEncoderConfig, given, f"{path}: settings")
    for field in dataclasses.fields(image):
        one, two = getattr(config.image, field.name), getattr(image, field.name)
        if one != two:
            console.print(f"{field.name}: {two} as in {path}, not {one} as in config.extract.image")
    return dataclasses.replace(config, image=image, image_weights=path)
