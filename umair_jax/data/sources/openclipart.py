"""The built-in catalogue: 2,743 public-domain drawings, with simulated bookmarks."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from umair_jax.data import pixel_statistics, simulate
from umair_jax.data.report import Report
from umair_jax.data.simulate import Simulation, SimulationConfig, simulate_bookmarks
from umair_jax.data.sources import RawInteractions, RawItem, RawUser

_FILE = "openclipart.parquet"
_LOG = "simulated log"


class OpenClipart:
    """Drawings of the Open Clip Art Library with a made-up log over them.

    Args:
        seed: Seed of the simulation.
        config: Its recipe.
        limit: Use only the first so many drawings.
    """

    name = "openclipart"
    simulated = True
    negatives = "uniform"

    def __init__(
        self, seed: int = 0, config: SimulationConfig | None = None, limit: int | None = None
    ):
        self.seed = seed
        self.config = config or SimulationConfig()
        self.limit = limit

    def request(self) -> dict[str, Any]:
        """The catalogue, the seed, the recipe, and the code that simulates."""
        code = [Path(str(module.__file__)).read_bytes() for module in (simulate, pixel_statistics)]
        return {
            "name": self.name,
            "seed": self.seed,
            "limit": self.limit,
            "simulation": dataclasses.asdict(self.config),
            "simulation_code": xxhash.xxh3_64_hexdigest(b"".join(code)),
            "catalogue": xxhash.xxh3_64_hexdigest(_bytes()),
        }

    def items(self, report: Report) -> Iterator[RawItem]:
        """All drawings; counts as of any time come from the log, which starts from zero."""
        table = self._table
        report.read(_FILE, len(table["illust_id"]))
        published = self._simulation.published
        for k, illust_id in enumerate(table["illust_id"]):
            yield RawItem(
                file=_FILE,
                row=k + 1,
                illust_id=str(illust_id),
                image=table["image"][k],
                title=table["title"][k] or "",
                artist=table["artist"][k] or "",
                description=table["description"][k] or "",
                category=table["category"][k] or "",
                tags=tuple(table["tags"][k] or ()),
                width=table["width"][k],
                height=table["height"][k],
                total_view=0,
                total_bookmarks=0,
                published=int(published[k]),
            )

    def users(self) -> Iterator[RawUser]:
        """The simulated people with their true mixtures."""
        for k, mixture in enumerate(self._simulation.user_mixture):
            name = _user_id(k)
            yield RawUser(name, name, mixture)

    def interactions(self, report: Report) -> Iterator[RawInteractions]:
        """The simulated log, in one piece."""
        log = self._simulation
        report.read(_LOG, len(log.label))
        people = pa.array([_user_id(k) for k in range(len(log.user_mixture))])
        drawings = pa.array([str(illust_id) for illust_id in self._table["illust_id"]])
        yield RawInteractions(
            file=_LOG,
            row=np.arange(1, len(log.label) + 1),
            user_id=pa.DictionaryArray.from_arrays(pa.array(log.user), people),
            illust_id=pa.DictionaryArray.from_arrays(pa.array(log.item), drawings),
            timestamp=log.timestamp,
            label=log.label,
            true_probability=log.true_probability,
        )

    @functools.cached_property
    def _table(self) -> dict[str, list[Any]]:
        return catalogue().slice(0, self.limit).to_pydict()

    @functools.cached_property
    def _simulation(self) -> Simulation:
        table = self._table
        tags = [tuple(dict.fromkeys(tags or ())) for tags in table["tags"]]
        artists = [artist or "" for artist in table["artist"]]
        return simulate_bookmarks(table["image"], tags, artists, self.seed, self.config)


def catalogue() -> pa.Table:
    """The drawings with their texts, one a row, without any log.

    Raises:
        FileNotFoundError: This installation has been stripped of them.
    """
    return pq.read_table(pa.BufferReader(_bytes()))


def _user_id(k: int) -> str:
    return f"user-{k + 1:04d}"


@functools.cache
def _bytes() -> bytes:
    return (importlib.resources.files("umair_jax.data.builtin") / _FILE).read_bytes()
