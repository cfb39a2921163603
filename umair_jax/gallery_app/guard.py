"""Stands before the application: whom it answers, how often, and with which headers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from umair_jax.gallery_app.limits import Buckets, Limits

# Nothing but this site's own files; nobody may put it into a frame.
HEADERS = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d{1,5})?")


class Guard:
    """Wraps an application; every answer, its errors among them, gets the headers."""

    def __init__(self, app: ASGIApp, limits: Limits, names: Collection[str] | None) -> None:
        """Takes the rules.

        Args:
            app: What answers.
            limits: How often a visitor may ask.
            names: Host names to answer to, without port, small letters; None = any. On loopback a
                page of another site could otherwise reach the gallery through a name of its own
                that it lets point to this machine.
        """
        self._app, self._names = app, None if names is None else frozenset(names)
        self._api = Buckets(limits.api_rate, limits.api_burst)
        self._files = Buckets(limits.file_rate, limits.file_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or refuses."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._refusal(scope)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        if self._names is not None:
            given = Headers(scope=scope).getlist("host")
            named = _HOST.fullmatch(given[0].lower()) if len(given) == 1 else None
            if named is None or named[1] not in self._names:
                return error(
                    400,
                    f"Host: got {', '.join(given) or 'nothing'}; expected one of "
                    f"{', '.join(sorted(self._names))}; start the gallery with --names for others",
                )
        buckets = self._api if scope["path"].startswith("/api/") else self._files
        wait = buckets.take(scope["client"][0] if scope.get("client") else "")
        if wait:
            seconds = math.ceil(wait)
            said = f"too many requests; expected fewer; ask again in {seconds} s"
            return error(429, said, {"retry-after": str(seconds)})
        return None


def error(
    status: int, said: str, headers: dict[str, str] | None = None, **more: object
) -> Response:
    """An answer that says what is wrong, as JSON: {"error": ...} and whatever else is given."""
    # Half of a surrogate pair, which a body can have, is not UTF-8: json writes it in ASCII.
    body = json.dumps({"error": said[:500], **more})
    kept = {"cache-control": "no-store", **(headers or {})}
    return Response(body, status, kept, media_type="application/json")
