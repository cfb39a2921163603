"""What the configs of all jobs have in common: sections, checks, and the prepared data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from umair_jax import hosts, settings
from umair_jax.data import store
from umair_jax.data.dataset import Dataset
from umair_jax.data.images import PIXEL_LIMIT
from umair_jax.data.ranking_config import DEVICE, RankingConfig
from umair_jax.data.sources import open_source
from umair_jax.hosts import HostsConfig
from umair_jax.models import weights
from umair_jax.models.layers import check_choice
from umair_jax.prepare import prepare
from umair_jax.training.checkpoints import CheckpointConfig
from umair_jax.training.logs import LogConfig
from umair_jax.training.optimisers import OptimConfig
from umair_jax.training.settings import FitConfig, TrainConfig
from umair_jax.training.sharding import BatchPlacer, MeshConfig, make_mesh

FIT_SECTIONS = {
    "optim": OptimConfig,
    "mesh": MeshConfig,
    "checkpoint": CheckpointConfig,
    "log": LogConfig,
}
# What every job has besides its own.
COMMON = {"hosts": HostsConfig, **FIT_SECTIONS}


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What a run leaves of the encoders that it trained.

    Attributes:
        dtype: How their weights are stored, see weights.DTYPES.
    """

    dtype: str = "float32"

    def __post_init__(self):
        check_choice("export dtype", self.dtype, tuple(weights.DTYPES))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the data come from and where they are kept.

    Attributes:
        source: openclipart (built in), folder or movielens.
        path: The folder to read; openclipart needs none.
        limit: Use only the first so many drawings of openclipart; 0 = all.
        untimed_tags: Read the users' words of movielens, some of which are from after the events
            that a ranker is to predict.
        root: Folder for prepared data sets and feature banks.
        seed: Seed of the simulated log and of sampled negatives.
        pixel_limit: Largest width x height of a picture.
        max_bad_share: Largest tolerated share of bad rows in any one file.
        negatives: auto, none, uniform or popularity; see umair_jax.prepare.
        negatives_per_positive: Sampled negatives per bookmark.
    """

    source: str = "openclipart"
    path: str = ""
    limit: int = 0
    untimed_tags: bool = False
    root: str = "data"
    seed: int = 0
    pixel_limit: int = PIXEL_LIMIT
    max_bad_share: float = 0.05
    negatives: str = "auto"
    negatives_per_positive: int = 4

    def __post_init__(self):
        if self.limit < 0:
            raise ValueError(f"limit: got {self.limit}; expected 1 or more drawings, or 0 for all")


def read(config: ConfigDict, kinds: Mapping[str, type], plain: tuple[str, ...] = ()) -> Any:
    """The sections of a config as dataclasses, with "train", which takes the config's seed.

    Args:
        config: As get_config() gives it.
        kinds: Section -> its dataclass.
        plain: Sections that the caller builds.

    Returns:
        Section -> instance.

    Raises:
        ValueError: A section, key or value that is not known, or sizes that do not fit the mesh.
    """
    sections = config.to_dict()
    unknown = sorted(set(sections) - {*kinds, *plain, "task", "seed", "train"})
    if unknown:
        raise ValueError(
            f"config: unknown sections {unknown}; expected task, seed, train, "
            f"{', '.join([*plain, *kinds])}"
        )
    made = {
        name: settings.build(kind, sections.get(name, {}), f"config.{name}")
        for name, kind in kinds.items()
    }
    given = {**sections.get("train", {}), "seed": sections.get("seed", 0)}
    made["train"] = settings.build(TrainConfig, given, "config.train")
    mesh = make_mesh(made["mesh"])
    for name in ("train", "eval"):
        try:
            BatchPlacer(mesh, made[name].batch_size)
        except ValueError as error:
            raise ValueError(f"config.{name}: {error}") from error
    return made


def fit_config(made: Mapping[str, Any]) -> FitConfig:
    """The options of the loop out of what `read` made."""
    given = {name: made[name] for name in (*FIT_SECTIONS, "tables") if name in made}
    return FitConfig(made["train"], **given)


def prepared(config: DataConfig, console: Console) -> Dataset:
    """The data set of a config: prepared, or read if it is there."""
    parts = [config.source, Path(config.path).name, config.limit and f"first{config.limit}"]
    parts.append(config.untimed_tags and "untimed_tags")
    data_dir = Path(config.root) / "-".join([*filter(None, parts), f"seed{config.seed}"])
    # Once in every folder: hosts may share one, or have disks of their own.
    if hosts.team(config.root).first:
        prepare(
            open_source(
                config.source,
                config.path or None,
                config.seed,
                config.limit or None,
                config.untimed_tags,
            ),
            data_dir,
            pixel_limit=config.pixel_limit,
            max_bad_share=config.max_bad_share,
            negatives=config.negatives,
            negatives_per_positive=config.negatives_per_positive,
            seed=config.seed,
            console=console,
        )
    hosts.barrier("prepare the data")
    dataset = store.load(data_dir)
    hosts.agree("data set", dataset.fingerprint)
    return dataset


def check_on_device(features: RankingConfig, why: str) -> None:
    """Refuses vectors on the host.

    Raises:
        ValueError: They are there; `why` says who needs them on the devices.
    """
    if features.vectors_on != DEVICE:
        raise ValueError(
            f"config.features.vectors_on: got {features.vectors_on!r}, expected {DEVICE!r}: {why}"
        )
