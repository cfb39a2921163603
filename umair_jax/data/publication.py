"""When items came out, on the clock of the log: what is new now will be old tomorrow."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from umair_jax.data.dataset import Dataset

_DAY = 86_400


def days(dataset: Dataset) -> tuple[Float32[np.ndarray, " I"], Float32[np.ndarray, " N1"]]:
    """Days from the beginning of the log to each interaction, and to each item's publication.

    What came out before the log by more than the log's own length counts as that old, and so do
    items of unknown age.
    """
    when = dataset.interactions.timestamp
    first, last = int(when.min()), int(when.max())
    published = np.maximum(dataset.items.published, first - (last - first))
    published = np.where(dataset.items.published == -1, first - (last - first), published)
    return (
        ((when - first) / _DAY).astype(np.float32),
        ((published - first) / _DAY).astype(np.float32),
    )
