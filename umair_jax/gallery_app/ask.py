"""The body of a request for recommendations, checked."""

from __future__ import annotations

import dataclasses
import json

from umair_jax import settings
from umair_jax.gallery_app.limits import Limits
from umair_jax.recommending.choice import ChoiceConfig
from umair_jax.recommending.filters import Filters
from umair_jax.recommending.recommender import Request


@dataclasses.dataclass(frozen=True)
class Ask:
    """What a visitor asks for.

    Attributes:
        likes: Ids of the drawings they like, the latest last.
        balance: See recommender.Request.
        diversity: See choice.ChoiceConfig; likewise per_artist.
        per_artist: Drawings of one artist, at most; 0 = any number.
        k: Length of the list.
    """

    likes: tuple[str, ...] = ()
    balance: float = 0.0
    diversity: float = 0.0
    per_artist: int = 0
    k: int = 12

    def request(self, filters: Filters) -> Request:
        """The same for the recommender.

        Raises:
            ValueError: A number is out of its range.
        """
        chosen = ChoiceConfig(self.k, self.per_artist, self.diversity)
        return Request(chosen, filters, balance=self.balance)


def parse(body: bytes, limits: Limits) -> Ask:
    """Reads a body.

    Args:
        body: JSON, an object with some of the keys of Ask.
        limits: Bounds of `likes` and `k`.

    Raises:
        ValueError: It is no JSON object, has another key, or a value of another type or beyond the
            limits.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'body: got no JSON ({str(error)[:80]}); expected an object like {{"likes": []}}'
        ) from None
    if not isinstance(values, dict):
        raise ValueError(
            f'body: got a {type(values).__name__}; expected an object like {{"likes": []}}'
        )
    ask = settings.build(Ask, values, "body")
    if len(ask.likes) > limits.likes:
        raise ValueError(
            f"body.likes: got {len(ask.likes)} drawings; expected {limits.likes} at most"
        )
    if ask.k > limits.k:
        raise ValueError(f"body.k: got {ask.k}; expected 1 to {limits.k}")
    return ask
