"""A wall of drawings in the browser: like some, and see what is recommended and why.

    python -m umair_jax.gallery --workdir=runs/base [--port=8000] [--host=127.0.0.1]

Needs `pip install -e ".[gallery]"`; nothing else, not even a network. Only this computer can
see it unless --host says otherwise. What it answers to programs: umair_jax/gallery_app/app.py.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console

from umair_jax import settings
from umair_jax.gallery_app.limits import LOOPBACK_NAMES
from umair_jax.memory import keep_freed_memory
from umair_jax.recommending import person, recommender, retriever
from umair_jax.recommending.filters import Filters
from umair_jax.recommending.recommender import Recommender, Request

_CONNECTIONS = 256
_STOP_SECONDS = 5


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: Name or address.
        port: 0 = any free one.

    Raises:
        ValueError: There is no such host or port here, or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port: got {port}; expected 0 to 65535, where 0 is any free port")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)  # type: ignore[arg-type]
    except OSError as error:
        raise ValueError(
            f"--host, --port: got {host}:{port}, which cannot be used ({error.strerror or error}); "
            "expected an address of this computer and a free port; name another --port"
        ) from error


def names_of(host: str, also: list[str]) -> frozenset[str] | None:
    """Host names to answer to; None = any, where other computers can see the gallery anyway.

    Args:
        host: Address that it listens to.
        also: Names that are allowed besides.
    """
    if not is_loopback(host) and not also:
        return None
    return LOOPBACK_NAMES | {host.lower(), *(name.strip().lower() for name in also)}


def is_loopback(host: str) -> bool:
    """Whether only this computer can see what listens to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def warm_up(found: Recommender) -> None:
    """Compiles what the first visitor would wait for."""
    first = np.flatnonzero(found.dataset.items.published <= found.moment)[1:2].astype(np.int32)
    found.recommend(person.of_rows(first, found.moment), Request())


def server_of(app: Any) -> Any:
    """A uvicorn.Server; its `run` answers until it is interrupted.

    Args:
        app: An ASGI application.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        server_header=False,
        # Nobody may say through a header that he is another visitor.
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    return uvicorn.Server(config)


def define_flags() -> None:
    """The flags of the command line; in a function, since tests call it again."""
    flags.DEFINE_string("workdir", None, "Folder of a run of the ranker.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or a number of updates.")
    flags.DEFINE_string("retrieval", None, "Folder of a run of configs/retrieval.py: candidates.")
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen to; 0.0.0.0 = all networks.")
    flags.DEFINE_integer("port", 8000, "Port to listen to; 0 = any free one.")
    flags.DEFINE_list("names", None, "Further host names to answer to, such as a proxy's.")
    flags.DEFINE_list("block_tags", None, "Tags that no drawing may have.")
    flags.DEFINE_integer("max_sanity_level", None, "Highest rating; unrated ones go as well.")


def main(argv: list[str]) -> None:
    """Parses the flags, loads the run and serves."""
    if len(argv) > 1:
        raise ValueError(
            f"arguments: got {argv[1:]}; expected flags only, like --workdir=runs/base"
        )
    values = flags.FLAGS
    if not values.workdir:
        raise ValueError("--workdir: got nothing; expected the folder of a run, like runs/base")
    try:
        import uvicorn  # noqa: F401

        from umair_jax.gallery_app.app import make_app
    except ModuleNotFoundError as error:
        if error.name not in ("anyio", "starlette", "uvicorn"):
            raise
        raise ValueError(
            f'the gallery needs {error.name}, which is not installed: pip install -e ".[gallery]"'
        ) from error
    filters = Filters(
        block_tags=tuple(values.block_tags or ()), max_sanity_level=values.max_sanity_level
    )
    console = Console()
    listening = listen(values.host, values.port)
    towers = retriever.load(values.retrieval, console) if values.retrieval else None
    found = recommender.load(values.workdir, values.checkpoint, console, towers)
    for tag in found.unknown_tags(filters):
        console.print(f"--block_tags: no drawing has the tag {tag!r}", style="bold", markup=False)
    app = make_app(found, names_of(values.host, values.names or []), filters)
    warm_up(found)
    if not is_loopback(values.host):
        console.print(
            f"[bold]--host={values.host}:[/bold] whoever reaches this computer over the network "
            "can see the drawings and ask for recommendations; there is no password"
        )
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    console.print(
        f"{found.dataset.name}, checkpoint {found.step:,}: http://{shown}:{port}/ "
        "(Ctrl+C stops it)",
        markup=False,
    )
    # uvicorn stops in order at the first Ctrl+C, and tells of it by this when it has.
    with listening, contextlib.suppress(KeyboardInterrupt):
        server_of(app).run(sockets=[listening])


if __name__ == "__main__":
    keep_freed_memory()
    settings.run_front_door(main, define_flags)
