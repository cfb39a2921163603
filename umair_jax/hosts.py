"""Several processes as one: how they begin, wait for each other and share folders.

Every process runs the same command. Where it stands comes from `config.hosts`, from the environment
(JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID), or from a cluster that JAX knows
(`config.hosts.cluster`). With a single process everything here does nothing.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import ipaddress
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax._src import clusters, distributed

from umair_jax.roll_call import address, roll_call

# JAX's own names of them; None tries all that it knows, TPU VMs among them.
CLUSTERS = {"auto": None, "slurm": "slurm", "ompi": "ompi"}
_ENVIRONMENT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_VERSIONS = ("umair_jax", "jax", "jaxlib")
# Of one that ends, for the others to end too.
_SHUTDOWN_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class HostsConfig:
    """Which process of how many this is. Says nothing about what is trained.

    Attributes:
        coordinator: host:port of process 0; empty = JAX_COORDINATOR_ADDRESS, or a single process.
        processes: How many there are; 0 = JAX_NUM_PROCESSES.
        process: Number of this one; -1 = JAX_PROCESS_ID.
        cluster: slurm or ompi (Open MPI), which know all of this themselves; auto = whatever is
            found, TPU VMs too; empty = none.
        local: All processes are on this machine; only then may the coordinator be a loopback
            address.
        start_seconds: How long to wait for the others at the beginning.
        barrier_seconds: How long to wait for the others later, such as for a share of the
            drawings to be encoded.
        heartbeat_seconds: After which silence of one the others are ended.
    """

    coordinator: str = ""
    processes: int = 0
    process: int = -1
    cluster: str = ""
    local: bool = False
    start_seconds: int = 300
    barrier_seconds: int = 3600
    heartbeat_seconds: int = 100

    def __post_init__(self) -> None:
        if self.cluster not in ("", *CLUSTERS):
            raise ValueError(
                f"cluster: got {self.cluster!r}; expected one of {', '.join(CLUSTERS)}"
            )
        if min(self.start_seconds, self.barrier_seconds, self.heartbeat_seconds) < 1:
            raise ValueError(
                "start_seconds, barrier_seconds, heartbeat_seconds: expected 1 or more"
            )
        if self.coordinator:
            address(self.coordinator)


class MissingHostError(RuntimeError):
    """Others did not arrive in time."""


_barrier_seconds = 3600
_passed: collections.Counter[str] = collections.Counter()


def start(config: HostsConfig, environment: Mapping[str, str] | None = None) -> None:
    """Joins the other processes; before anything else of JAX. Does nothing for a single one.

    Raises:
        ValueError: A place that is not whole (no number of processes, ...), a coordinator that
            others cannot reach, or processes that are missing or do not fit; all are named.
    """
    global _barrier_seconds
    place = _place(config, os.environ if environment is None else environment)
    if place is None or place[1] == 1:
        return
    coordinator, processes, process, devices = place
    _refuse_loopback(coordinator, config.local)
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    facts = {"host": socket.gethostname(), **versions}
    names = roll_call(coordinator, processes, process, facts, config.start_seconds)
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        local_device_ids=devices,
        cluster_detection_method="deactivate",
        initialization_timeout=config.start_seconds,
        heartbeat_timeout_seconds=config.heartbeat_seconds,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
    _barrier_seconds = config.barrier_seconds
    if process == 0:
        for number, name in enumerate(names):
            _client().key_value_set(f"umair_jax/hosts/{number}", name)
    barrier("start")


def is_first() -> bool:
    """Whether this process is the one that prints, and writes what there is once."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when all processes are here.

    Raises:
        MissingHostError: Some did not come within `barrier_seconds`; they are named.
    """
    if jax.process_count() == 1:
        return
    _passed[name] += 1
    key, client = f"umair_jax/{name}/{_passed[name]}", _client()
    client.key_value_set(f"{key}/{jax.process_index()}", "here")
    try:
        client.wait_at_barrier(key, _barrier_seconds * 1000)
    except jax.errors.JaxRuntimeError as error:
        came = {int(path.rpartition("/")[2]) for path, _ in client.key_value_dir_get(f"{key}/")}
        missing = [number for number in range(jax.process_count()) if number not in came]
        if not missing:
            raise
        raise MissingHostError(
            f"{name}: after {_barrier_seconds} s process "
            f"{', '.join(f'{number} on {_host(number)}' for number in missing)} has not come; "
            f"{len(came)} of {jax.process_count()} have. Look at its log; where the work takes "
            "longer, raise config.hosts.barrier_seconds"
        ) from error


def gather(name: str, value: str) -> list[str]:
    """What each process says, by its number; a barrier besides."""
    if jax.process_count() == 1:
        return [value]
    _passed[f"gather {name}"] += 1
    key = f"umair_jax/gathered/{name}/{_passed[f'gather {name}']}"
    _client().key_value_set(f"{key}/{jax.process_index()}", value)
    barrier(name)
    said = {int(k.rpartition("/")[2]): v for k, v in _client().key_value_dir_get(f"{key}/")}
    return [said[number] for number in range(jax.process_count())]


def agree(what: str, value: str) -> None:
    """Checks that all processes have the same of something.

    Raises:
        ValueError: They do not; each process and its value is named.
    """
    said = gather(f"agree on {what}", value)
    if len(set(said)) > 1:
        each = "; ".join(f"process {i} on {_host(i)}: {v}" for i, v in enumerate(said))
        raise ValueError(f"{what}: got different ones, expected the same everywhere: {each}")


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes that see the same folder as this one.

    Attributes:
        members: Their numbers, ascending.
        index: This one's place among them.
    """

    members: tuple[int, ...]
    index: int

    @property
    def first(self) -> bool:
        """Whether this one does what is to be done once in the folder."""
        return self.index == 0


def team(folder: str | os.PathLike[str]) -> Team:
    """Finds out with whom this process shares a folder; makes it if it is not there."""
    if jax.process_count() == 1:
        return Team((0,), 0)
    place, mine = Path(folder), jax.process_index()
    place.mkdir(parents=True, exist_ok=True)
    tokens = gather("tokens", secrets.token_hex(8))
    paths = [place / f".host-{token}" for token in tokens]
    paths[mine].touch()
    barrier("tokens written")
    members = tuple(number for number, path in enumerate(paths) if path.exists())
    barrier("tokens seen")
    paths[mine].unlink()
    return Team(members, members.index(mine))


def require_shared(folder: str | os.PathLike[str], what: str) -> None:
    """Checks that all processes see a folder.

    Raises:
        ValueError: They do not.
    """
    found = team(folder)
    said = gather("shared", str(len(found.members)))
    if any(int(size) < jax.process_count() for size in said):
        raise ValueError(
            f"{what}: got {folder}, which process {jax.process_index()} shares with "
            f"{len(found.members) - 1} of {jax.process_count() - 1} others; expected a folder on "
            "a file system of all hosts (NFS, Lustre, a mounted bucket)"
        )


def _place(
    config: HostsConfig, environment: Mapping[str, str]
) -> tuple[str, int, int, list[int] | None] | None:
    """Coordinator, processes, this one's number and devices; None for a single process."""
    if config.cluster:
        name, given = CLUSTERS[config.cluster], config.coordinator or None
        known = {kind.name: kind for kind in clusters.ClusterEnv._cluster_types}
        coordinator = processes = process = devices = None
        if name is None or known[name].is_env_present():
            coordinator, processes, process, devices = (
                clusters.ClusterEnv.auto_detect_unset_distributed_params(
                    given, None, None, None, name, config.start_seconds
                )
            )
        if coordinator is None or processes is None or process is None:
            raise ValueError(
                f"config.hosts.cluster: got {config.cluster!r}, but nothing of it is found here; "
                "give coordinator, processes and process"
            )
        return coordinator, processes, process, None if devices is None else list(devices)
    told = [environment.get(name, "") for name in _ENVIRONMENT]
    coordinator = config.coordinator or told[0]
    processes = config.processes or _number(_ENVIRONMENT[1], told[1], 0)
    process = config.process if config.process >= 0 else _number(_ENVIRONMENT[2], told[2], -1)
    if not coordinator and processes in (0, 1):
        return None
    if not coordinator or processes < 1 or not 0 <= process < processes:
        raise ValueError(
            f"config.hosts: got coordinator {coordinator!r}, processes {processes}, process "
            f"{process}; expected host:port of process 0, how many there are, and which one this "
            f"is, from 0 (or the same as {', '.join(_ENVIRONMENT)})"
        )
    return coordinator, processes, process, None


def _number(name: str, text: str, missing: int) -> int:
    if text and not text.isdecimal():
        raise ValueError(f"{name}: got {text!r}; expected a whole number")
    return int(text) if text else missing


def _refuse_loopback(coordinator: str, local: bool) -> None:
    host, _ = address(coordinator)
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host in ("localhost", "localhost.localdomain", "ip6-localhost")
    if loopback and not local:
        raise ValueError(
            f"coordinator: got {coordinator}, an address that every machine has for itself, so "
            "that processes on other hosts would look for process 0 on their own; give the address "
            "of its machine in the network, or, if all processes are on this one, "
            "--config.hosts.local=True (launch/local_hosts.py does)"
        )


def _host(number: int) -> str:
    return _client().key_value_try_get(f"umair_jax/hosts/{number}")


def _client() -> Any:
    client = distributed.global_state.client
    assert client is not None, "hosts.start comes first"
    return client
