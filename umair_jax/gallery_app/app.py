"""The gallery as an ASGI application.

| request | answer |
|---|---|
| GET /api/site | what this is: "name", "simulated", "drawings", "modalities", "catalogue", "limits" |
| GET /api/drawings?page=0&q=words | a page of the wall: "page", "pages", "total", "drawings" |
| POST /api/recommendations | for somebody who likes these drawings: "liked", "allowed", "ranked", "recommended" |
| GET /api/similar/ID?by=style&k=24 | the nearest by style, content or text: "drawing", "by", "nearest" |
| GET /thumbnail/ROW.webp | a picture, at the address that a drawing names |

The body of the POST is JSON, {"likes": [ID, ...], "balance": 0, "diversity": 0, "per_artist": 0,
"k": 12}, all of them optional; see recommender.Request and choice.ChoiceConfig. A drawing has
"illust_id", "title", "artist", "tags" and "picture", an address or null. One that is recommended
also has "rank", "probability" of a bookmark, "weights" by modality, and "because": the liked drawing
that it is nearest to, "by" what, and the "cosine"; or null. One of "nearest" has its "cosine".

What is refused gets {"error": ...}: 400 for a wrong value (unknown ids stand in "unknown"), 404 for
a wrong address, 408 and 413 for a body that is too slow or too long, 415 for one that is no JSON,
429 and 503 with Retry-After for too many requests of one visitor or of all.
"""  # noqa: E501 - a table

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from umair_jax import gallery_app
from umair_jax.gallery_app import ask, guard
from umair_jax.gallery_app.limits import LOOPBACK_NAMES, Limits
from umair_jax.gallery_app.pictures import Pictures
from umair_jax.gallery_app.wall import UnknownDrawings, Wall
from umair_jax.recommending import output, person
from umair_jax.recommending.filters import Filters, Rules
from umair_jax.recommending.recommender import Recommender

T = TypeVar("T")

_PAGES = {
    "index.html": "text/html; charset=utf-8",
    "gallery.css": "text/css; charset=utf-8",
    "gallery.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_SIMILAR = 24
# Decoding pictures leaves cores to the ranker.
_PICTURE_THREADS = 2
_FOREVER = "public, max-age=31536000, immutable"


class Gallery:
    """Answers about one recommender."""

    def __init__(self, recommender: Recommender, limits: Limits, filters: Filters) -> None:
        """Reads the pages and orders the wall.

        Args:
            recommender: Whom it asks.
            limits: What a visitor may ask for.
            filters: What may be shown to anybody.
        """
        self._recommender, self._limits, self._filters = recommender, limits, filters
        dataset = recommender.dataset
        nobody = person.of_rows(np.zeros(0, np.int32), recommender.moment)
        shown = Rules(dataset).allowed(nobody, filters, recommender.moment)
        self._hidden = np.flatnonzero(~shown).tolist()
        self._wall = Wall(dataset, shown)
        self._shown = frozenset(np.flatnonzero(shown).tolist())
        self._pictures = Pictures(dataset, limits.cache_bytes)
        self._has_picture = np.any(recommender.vectors.by["content"], axis=1)
        folder = importlib.resources.files(gallery_app) / "pages"
        self._files = {name: (folder / name).read_bytes() for name in _PAGES}
        # The ranker answers one after the other: it uses all cores for each.
        self._ranking = anyio.CapacityLimiter(1)
        self._asking = 0  # who is ranked for now, and who waits for it
        self._drawing = anyio.CapacityLimiter(_PICTURE_THREADS)

    def application(self) -> Starlette:
        """The routes."""
        return Starlette(
            routes=[
                Route("/", self._file),
                Route("/static/{name}", self._file),
                Route("/thumbnail/{name}", self._thumbnail),
                Route("/api/site", self._site),
                Route("/api/drawings", self._drawings),
                Route("/api/recommendations", self._recommendations, methods=["POST"]),
                Route("/api/similar/{illust_id:path}", self._similar),
            ],
            exception_handlers={
                HTTPException: _refused,
                UnknownDrawings: _unknown,
                Exception: _failed,
            },
        )

    async def _file(self, request: HttpRequest) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in self._files:
            raise HTTPException(404, f"{name[:60]!r}: no such file")
        tag = '"' + hashlib.sha256(self._files[name]).hexdigest()[:32] + '"'
        headers = {"etag": tag, "cache-control": "no-cache"}
        return _cached(request, headers) or Response(
            self._files[name], headers=headers, media_type=_PAGES[name]
        )

    async def _thumbnail(self, request: HttpRequest) -> Response:
        name = request.path_params["name"]
        number = name.removesuffix(".webp")
        row = int(number) if number.isascii() and number.isdigit() and len(number) < 12 else 0
        if name != f"{row}.webp" or row not in self._shown:
            raise HTTPException(404, f"{name[:60]!r}: no such picture")
        version = self._pictures.version
        named = request.query_params.get("v") == version
        headers = {
            "etag": f'"{version}-{row}"',
            "cache-control": _FOREVER if named else "no-cache",
        }
        if kept := _cached(request, headers):
            return kept
        picture = await self._in_thread(self._drawing, None, self._pictures.read, row)
        if not picture:
            raise HTTPException(404, f"{name!r}: this drawing has no picture")
        return Response(picture, headers=headers, media_type="image/webp")

    async def _site(self, request: HttpRequest) -> Response:
        dataset = self._recommender.dataset
        return _answer(
            {
                "name": dataset.name,
                "simulated": dataset.simulated,
                "drawings": len(self._wall),
                "modalities": list(self._recommender.modalities),
                "catalogue": self._pictures.version,
                "limits": {"likes": self._limits.likes, "k": self._limits.k},
            }
        )

    async def _drawings(self, request: HttpRequest) -> Response:
        number = _whole(request, "page", 0, 0, 1_000_000)
        query = request.query_params.get("q", "")
        if len(query) > self._limits.query:
            raise HTTPException(
                400, f"q: got {len(query)} characters; expected {self._limits.query} at most"
            )
        page = await self._in_thread(None, None, self._wall.page, number, query)
        drawings = [self._card(row) for row in page.rows]
        return _answer(
            {"page": number, "pages": page.pages, "total": page.total, "drawings": drawings}
        )

    async def _recommendations(self, request: HttpRequest) -> Response:
        try:
            asked = ask.parse(await self._body(request), self._limits)
            wanted = asked.request(self._filters)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        rows = self._wall.rows(asked.likes)
        who = person.of_rows(np.array(rows, np.int32), self._recommender.moment)
        found = await self._in_thread(
            self._ranking, self._limits.waiting, self._recommender.recommend, who, wanted
        )
        told = output.as_json(found, self._recommender.dataset, self._recommender.modalities)
        del told["user_id"]
        told["liked"] = [self._card(row) for row in rows]
        for said, pick in zip(told["recommended"], found.picks, strict=True):
            said |= self._card(pick.item)
            if pick.because:
                said["because"] |= self._card(pick.because.liked)
        return _answer(told)

    async def _similar(self, request: HttpRequest) -> Response:
        by = request.query_params.get("by", "style")
        vectors = self._recommender.vectors.by
        if by not in vectors:
            raise HTTPException(400, f"by: got {by[:60]!r}; expected one of {', '.join(vectors)}")
        k = _whole(request, "k", _SIMILAR, 1, self._limits.k)
        (row,) = self._wall.rows([request.path_params["illust_id"]])
        without = [row, *self._hidden]
        found, cosines = await self._in_thread(
            None, None, self._recommender.similar, by, vectors[by][row], k, without
        )
        nearest = [
            self._card(int(other)) | {"cosine": float(cosine)}
            for other, cosine in zip(found, cosines, strict=True)
        ]
        return _answer({"drawing": self._card(row), "by": by, "nearest": nearest})

    def _card(self, row: int) -> dict[str, Any]:
        picture = None
        if self._has_picture[row]:
            picture = f"/thumbnail/{row}.webp?v={self._pictures.version}"
        return self._wall.card(row) | {"picture": picture}

    async def _body(self, request: HttpRequest) -> bytes:
        """The body of a request.

        Raises:
            HTTPException: It is no JSON by its header, too long, or too slow.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HTTPException(
                415, f"Content-Type: got {kind[:60]!r}; expected 'application/json'"
            )
        body, most = bytearray(), self._limits.body_bytes
        try:
            with anyio.fail_after(self._limits.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise HTTPException(413, f"body: expected {most:,} bytes at most")
        except TimeoutError:
            raise HTTPException(408, "body: it did not arrive in time; send it again") from None
        return bytes(body)

    async def _in_thread(
        self,
        limiter: anyio.CapacityLimiter | None,
        waiting: int | None,
        function: Callable[..., T],
        *args: Any,
    ) -> T:
        if not limiter or not waiting:
            return await anyio.to_thread.run_sync(function, *args, limiter=limiter)
        # Counted here: whoever has just been let in is not in the limiter's own count yet.
        if self._asking >= limiter.total_tokens + waiting:
            raise HTTPException(503, "busy; ask again in 1 s", {"retry-after": "1"})
        self._asking += 1
        try:
            return await anyio.to_thread.run_sync(function, *args, limiter=limiter)
        finally:
            self._asking -= 1


def make_app(
    recommender: Recommender,
    names: Collection[str] | None = LOOPBACK_NAMES,
    filters: Filters | None = None,
    limits: Limits | None = None,
) -> guard.Guard:
    """The application, ready for a server.

    Args:
        recommender: Of a run.
        names: Host names that it answers to; None = any.
        filters: What may be shown to anybody.
        limits: What a visitor may ask for.
    """
    limits = limits or Limits()
    gallery = Gallery(recommender, limits, filters or Filters())
    return guard.Guard(gallery.application(), limits, names)


def _whole(request: HttpRequest, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name, str(default))
    if text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high:
        return int(text)
    raise HTTPException(400, f"{name}: got {text[:60]!r}; expected a number, {low} to {high}")


def _cached(request: HttpRequest, headers: dict[str, str]) -> Response | None:
    """Says that the browser's own copy is good, if it is."""
    kept = request.headers.get("if-none-match", "")
    known = {tag.strip().removeprefix("W/") for tag in kept.split(",")}
    return Response(status_code=304, headers=headers) if headers["etag"] in known else None


def _answer(values: dict[str, Any]) -> Response:
    return Response(
        json.dumps(values),
        headers={"cache-control": "no-store"},
        media_type="application/json",
    )


def _refused(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return guard.error(error.status_code, error.detail, dict(error.headers or {}))


def _unknown(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, UnknownDrawings)
    return guard.error(400, str(error), unknown=error.ids)


def _failed(request: HttpRequest, error: Exception) -> Response:
    # The server's log has the traceback; it is nothing for visitors.
    return guard.error(500, "something went wrong here; the gallery's own log says what")
