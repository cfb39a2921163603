"""Who is there, before JAX begins: every process reports to process 0 and hears of all others.

JAX itself ends a process with a stack trace when another one does not come, and names nobody. Here
the message says which process is missing, on which machine the others are, and what to look at.

Process 0 listens on the port on which JAX's own service will then listen. Every other process sends
one line of JSON and waits for one: {"hosts": [...]} when all are there, or {"error": "..."}.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Mapping

_LONGEST_LINE = 64 * 1024
_BETWEEN_TRIES = 0.5
# What process 0 waits for a line of somebody who has connected.
_LINE_SECONDS = 5.0
# What the others wait beyond the time, so that process 0's answer, which names all, comes first.
_GRACE = 15.0


class RollCallError(ValueError):
    """A process is missing, or one does not belong to this run."""


def address(coordinator: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[IPv6]:port".

    Raises:
        ValueError: It is neither.
    """
    host, colon, port = coordinator.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"coordinator: got {coordinator!r}; expected host:port of process 0")
    return host.strip("[]"), int(port)


def roll_call(
    coordinator: str,
    processes: int,
    process: int,
    facts: Mapping[str, str],
    seconds: float,
) -> list[str]:
    """Returns when all processes of a run are there.

    Args:
        coordinator: host:port of process 0.
        processes: How many there are.
        process: Number of this one.
        facts: What must be the same for all, by name (versions), and "host", which need not be.
        seconds: How long to wait for the others.

    Returns:
        The host of each process, by number.

    Raises:
        RollCallError: Some did not come (they are named), two have one number, or they do not
            agree in number or facts.
        ValueError: The coordinator's address cannot be used.
    """
    mine = {"processes": processes, "process": process, **facts}
    if process == 0:
        return _call(address(coordinator)[1], mine, seconds)
    return _answer(coordinator, mine, seconds)


def _call(port: int, mine: dict, seconds: float) -> list[str]:
    """What process 0 does."""
    end, came = time.monotonic() + seconds, {0: mine}
    lines: list[socket.socket] = []
    with contextlib.ExitStack() as closing:
        server = closing.enter_context(_listen(port))
        try:
            while len(came) < mine["processes"]:
                server.settimeout(max(end - time.monotonic(), 0.001))
                try:
                    line = closing.enter_context(server.accept()[0])
                except TimeoutError:
                    raise RollCallError(_missing(came, mine["processes"], seconds)) from None
                theirs = _said(line, _LINE_SECONDS)
                if theirs is None or not isinstance(theirs.get("process"), int):
                    continue  # somebody else's connection
                lines.append(line)
                _check(mine, theirs, came)
                came[theirs["process"]] = theirs
        except RollCallError as error:
            _tell(lines, {"error": str(error)})
            raise
        hosts = [str(came[number].get("host")) for number in range(len(came))]
        _tell(lines, {"hosts": hosts})
        return hosts


def _answer(coordinator: str, mine: dict, seconds: float) -> list[str]:
    """What the others do."""
    end, last = time.monotonic() + seconds, "nothing tried"
    who = f"process {mine['process']} on {mine.get('host')}"
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise RollCallError(
                f"{who}: cannot reach process 0 at {coordinator} within {seconds:.0f} s ({last}); "
                "is it running there, and is the port open between the machines?"
            )
        try:
            with socket.create_connection(address(coordinator), timeout=min(left, 10.0)) as line:
                line.sendall(json.dumps(mine).encode() + b"\n")
                said = _said(line, left + _GRACE)
        except OSError as error:
            last, said = str(error), None
        if said and "error" in said:
            raise RollCallError(f"{who}: {said['error']}")
        if said and isinstance(said.get("hosts"), list):
            return [str(host) for host in said["hosts"]]
        time.sleep(_BETWEEN_TRIES)


def _listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024)
    except OSError as error:
        raise RollCallError(
            f"coordinator: cannot listen on port {port} ({error}); does another run use it? "
            "Choose another port"
        ) from error


def _said(line: socket.socket, seconds: float) -> dict | None:
    """The one line that the other side sends; None if it is no such line."""
    end, text = time.monotonic() + seconds, b""
    try:
        while not text.endswith(b"\n") and len(text) < _LONGEST_LINE:
            line.settimeout(max(end - time.monotonic(), 0.001))
            part = line.recv(4096)
            if not part:
                return None
            text += part
        found = json.loads(text)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _check(mine: dict, theirs: dict, came: Mapping[int, dict]) -> None:
    number, host = theirs["process"], theirs.get("host")
    if number in came:
        raise RollCallError(
            f"two processes have the number {number}: on {came[number].get('host')} and on {host}; "
            "number them 0, 1, 2, ..."
        )
    if not 0 <= number < mine["processes"]:
        raise RollCallError(
            f"process {number} on {host}: got a number beyond {mine['processes']} processes"
        )
    for name in mine:
        if name not in ("process", "host") and theirs.get(name) != mine[name]:
            raise RollCallError(
                f"process {number} on {host} has {name} {theirs.get(name)}, process 0 on "
                f"{mine.get('host')} has {mine[name]}; make them equal"
            )


def _missing(came: Mapping[int, dict], processes: int, seconds: float) -> str:
    there = ", ".join(f"{number} ({came[number].get('host')})" for number in sorted(came))
    missing = ", ".join(str(number) for number in range(processes) if number not in came)
    return (
        f"after {seconds:.0f} s {processes - len(came)} of {processes} processes have not come: "
        f"{missing}; there are: {there}. Look at the logs of those that are missing"
    )


def _tell(lines: list[socket.socket], said: dict) -> None:
    for line in lines:
        # One that has gone meanwhile is missed when JAX begins.
        with contextlib.suppress(OSError):
            line.sendall(json.dumps(said).encode() + b"\n")
