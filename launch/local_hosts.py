"""Several processes on this machine, each a host of its own: one line to try what a cluster does.

    python launch/local_hosts.py --processes=2 -- --config=configs/base.py --workdir=runs/two

What follows `--` goes to `python -m umair_jax.train` (or `--module`) as it is. Every line of the
output is marked with its process. When one fails, the others are ended too. On GPUs each process
takes an equal share of them; on CPUs `--devices` makes as many devices a process.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading

# For a process to save and end after it was asked to.
PATIENCE = 60.0
# For the others to end by themselves once one has failed: each says whom it missed.
ALONE = 5.0


def commands(options: argparse.Namespace) -> list[tuple[dict[str, str], list[str]]]:
    """What each process gets: additions to the environment, and its command."""
    found = []
    for number in range(options.processes):
        environment = {}
        if options.devices:
            environment |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(options.devices)}
        if options.gpus:
            each = options.gpus // options.processes
            mine = range(number * each, (number + 1) * each)
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, mine))
        place = {
            "coordinator": f"127.0.0.1:{options.port}",
            "processes": options.processes,
            "process": number,
            "local": True,
        }
        flags = [f"--config.hosts.{name}={value}" for name, value in place.items()]
        found.append((environment, [sys.executable, "-m", options.module, *options.args, *flags]))
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("", 0))
        return sock.getsockname()[1]


def run(planned: list[tuple[dict[str, str], list[str]]]) -> int:
    """Starts all, shows what they print, and waits; the first exit status that is not 0."""
    started = [
        subprocess.Popen(
            command,
            env=os.environ | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for more, command in planned
    ]

    def pass_on(number: int, frame: object) -> None:
        # One is enough: all hosts save and stop at the same step.
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                break

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}

    failed: list[int] = []

    def follow(number: int, process: subprocess.Popen) -> None:
        for line in process.stdout:
            sys.stdout.write(f"[{number}] {line}")
            sys.stdout.flush()
        if process.wait():
            failed.append(process.returncode)
            end_all()

    def end_all() -> None:
        for process in started:
            try:
                process.wait(ALONE)
            except subprocess.TimeoutExpired:
                process.terminate()
        for process in started:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()

    threads = [threading.Thread(target=follow, args=pair) for pair in enumerate(started)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, handler in before.items():
        signal.signal(number, handler)
    return abs(failed[0]) if failed else 0


def parse(argv: list[str]) -> argparse.Namespace:
    """The options; an error ends the program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2, help="how many")
    parser.add_argument("--devices", type=int, default=0, help="CPU devices of each")
    parser.add_argument(
        "--gpus", type=int, default=0, help="GPUs of this machine, to be shared out"
    )
    parser.add_argument("--port", type=int, default=0, help="of process 0; a free one if left out")
    parser.add_argument("--module", default="umair_jax.train", help="what each runs")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, start nothing")
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:split])
    options.args = argv[split + 1 :]
    if options.processes < 1 or options.devices < 0:
        parser.error("--processes, --devices: expected 1 or more")
    if options.gpus % options.processes:
        parser.error(f"--gpus: got {options.gpus}, which {options.processes} cannot share equally")
    options.port = options.port or free_port()
    return options


def main(argv: list[str]) -> int:
    """Starts the processes, or prints their commands."""
    options = parse(argv)
    planned = commands(options)
    if options.dry_run:
        for more, command in planned:
            print(shlex.join([*(f"{name}={value}" for name, value in more.items()), *command]))
        return 0
    return run(planned)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
