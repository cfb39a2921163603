"""Table rows of what is known of a user by tags: the interest tags of every state."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32

from umair_jax.data.dataset import Dataset
from umair_jax.data.fields import LONG_TAGS, SHORT_TAGS, Side
from umair_jax.data.interests import Histories, interest_tags, tag_vocabulary
from umair_jax.data.schema import Schema


class StateRows:
    """The tags of a catalogue with their table rows, looked up for any histories."""

    def __init__(self, dataset: Dataset, schema: Schema) -> None:
        """Numbers the tags and finds the rows of each, once.

        Args:
            dataset: The catalogue.
            schema: Its fields of interest tags decide what is looked up.
        """
        self._fields = [
            field for field in schema.sparse(Side.USER) if field.column in (LONG_TAGS, SHORT_TAGS)
        ]
        vocabulary = tag_vocabulary(dataset.items.tags)
        self._item_tags = vocabulary.item_tags
        names = [field.name for field in self._fields]
        self._embedding, self._wide = schema.tag_rows(vocabulary.tags, names)

    def __call__(self, histories: Histories) -> Int32[np.ndarray, "S F2"]:
        """Rows of the embedding table, then of the wide weights, by state and field."""
        tags = interest_tags(histories, self._item_tags)
        per_window = tags.shape[1] // 2
        places = [f.position + (per_window if f.column == SHORT_TAGS else 0) for f in self._fields]
        chosen = tags[:, places]
        each = np.arange(len(self._fields))
        return np.concatenate([self._embedding[chosen, each], self._wide[chosen, each]], axis=1)
