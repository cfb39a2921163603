"""One of several processes for test_hosts.py: ``python hosts_program.py PLACE FOLDER``.

PLACE is "process/processes@host:port". Everything that the processes do together, in one go: each
start costs seconds.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from umair_jax import hosts
from umair_jax.hosts import HostsConfig


def said(call):
    """The message of the error that a call ends with."""
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main(place, folder):
    numbers, coordinator = place.split("@")
    process, processes = map(int, numbers.split("/"))
    config = HostsConfig(coordinator, processes, process, local=True, barrier_seconds=2)
    hosts.start(config, {})
    assert jax.process_index() == process
    assert hosts.is_first() == (process == 0)
    # The devices are one mesh: a sum over all processes.
    assert multihost_utils.process_allgather(jnp.ones(1)).sum() == processes

    assert hosts.gather("numbers", str(process)) == [str(i) for i in range(processes)]
    assert hosts.gather("numbers", f"{process} again")[-1] == f"{processes - 1} again"
    hosts.agree("weather", "fine")
    print(said(lambda: hosts.agree("tea", "green" if process else "black")), flush=True)

    # Process 0 and 2 see one folder; process 1 has a disk of its own.
    disk = folder / ("own" if process == 1 else "shared")
    print(hosts.team(disk), flush=True)
    hosts.require_shared(folder, "workdir")
    print(said(lambda: hosts.require_shared(disk, "workdir")), flush=True)

    if process == 2:
        time.sleep(2.5)
    else:
        print(said(lambda: hosts.barrier("tea time")), flush=True)
    # The late one is not ended by that: all meet again.
    hosts.gather("after", "all")
    assert not list(disk.iterdir())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
