"""What one visitor may ask for, and how often."""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable

# What a computer calls itself.
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Visitors that a bucket remembers; whoever came longest ago is forgotten first.
_VISITORS = 10_000


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of the gallery.

    Attributes:
        body_bytes: Longest body of a request.
        body_seconds: How long a body may take to arrive.
        query: Longest text to search for, in characters.
        likes: Drawings that somebody may like.
        k: Longest list.
        waiting: Requests that may wait for the ranker before others are turned away.
        api_rate: Requests a second of one visitor to /api, in the long run.
        api_burst: The same at once.
        file_rate: Requests a second of one visitor to pages and pictures.
        file_burst: The same at once.
        cache_bytes: Memory for encoded thumbnails.
    """

    body_bytes: int = 64 * 1024
    body_seconds: float = 10.0
    query: int = 100
    likes: int = 200
    k: int = 60
    waiting: int = 32
    api_rate: float = 10.0
    api_burst: int = 40
    file_rate: float = 200.0
    file_burst: int = 600
    cache_bytes: int = 64 * 2**20

    def __post_init__(self):
        if min(dataclasses.astuple(self)) <= 0:
            raise ValueError(f"got {self}; expected limits above 0")


class Buckets:
    """One token bucket for each visitor: `burst` requests at once, `rate` a second after that."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Full buckets for everybody.

        Args:
            rate: Tokens that a bucket gains each second.
            burst: Tokens that it holds.
            clock: Seconds.
        """
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, visitor: str) -> float:
        """Takes a token.

        Returns:
            0, or the seconds until there is one.
        """
        now = self._clock()
        left, since = self._left.pop(visitor, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._rate)
        taken = left >= 1
        self._left[visitor] = (left - taken, now)
        if len(self._left) > _VISITORS:
            self._left.popitem(last=False)
        return 0.0 if taken else (1 - left) / self._rate
