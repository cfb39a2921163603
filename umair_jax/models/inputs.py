"""What every ranker takes and gives: the shapes that follow from a schema, inputs, outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

PRESENT, HISTORY_OF = "present", "history_"


@dataclasses.dataclass(frozen=True)
class InputShapes:
    """What a schema says about a ranker's inputs; the base of the options of every ranker.

    Attributes:
        user_fields: Sparse fields of the user, Fu.
        item_fields: Sparse fields of the item, Fi.
        embedding_width: D of the embeddings.
        user_dense: (name, width) of the user's dense inputs, in order.
        modalities: (name, width) of the item's dense modalities, in order.
    """

    # Whether the ranker reads the items that a user bookmarked, see RankerInputs.history.
    reads_history: ClassVar[bool] = False

    user_fields: int = 10
    item_fields: int = 13
    embedding_width: int = 8
    user_dense: tuple[tuple[str, int], ...] = (("long_term_text", 512), ("short_term_text", 512))
    modalities: tuple[tuple[str, int], ...] = (("content", 1024), ("style", 256), ("text", 512))

    @property
    def fields(self) -> int:
        """F: sparse fields of user and item."""
        return self.user_fields + self.item_fields

    @property
    def tables(self) -> tuple[str, ...]:
        """The stacked tables that the ranker looks up: "embedding", "wide" or both."""
        return ("embedding", "wide")

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Names of the columns of `RankerInputs.present`."""
        return tuple(name for name, _ in self.modalities)

    @property
    def weighted(self) -> tuple[str, ...]:
        """Names of the columns of `RankerOutput.weights`; none where modalities have no weight."""
        return ()

    def create(self, rngs: nnx.Rngs) -> Any:
        """The ranker: a module (RankerInputs, train=, key=, weight=) -> RankerOutput."""
        raise NotImplementedError


class RankerInputs(NamedTuple):
    """One batch, everything looked up already.

    Attributes:
        user_embeddings: [B, Fu, D]; D is 0 for a ranker without an embedding table.
        item_embeddings: [B, Fi, D].
        wide: Looked-up linear weights [B, F] of all sparse values, or None.
        user_dense: {name: [B, Dj]}, the names of the config.
        modalities: {name: [B, Dm]}, the names of the config; "meta" is not among them.
        present: Which modalities exist, in the order of `InputShapes.modality_names`; None = all.
        history: {name: [B, L, Dm]}, vectors of the items that the user bookmarked, zero where
            there are fewer than L; None for the rankers that do not read it.
    """

    user_embeddings: Float[Array, "B Fu D"]
    item_embeddings: Float[Array, "B Fi D"]
    wide: Float[Array, "B F"] | None
    user_dense: Mapping[str, Float[Array, "B _"]]
    modalities: Mapping[str, Float[Array, "B _"]]
    present: Bool[Array, "B M"] | None = None
    history: Mapping[str, Float[Array, "B L _"]] | None = None


def assemble(
    shapes: InputShapes,
    looked_up: Mapping[str, Any],
    arrays: Mapping[str, Any],
) -> RankerInputs:
    """A batch of inputs from arrays by name.

    Args:
        shapes: Of the ranker.
        looked_up: Rows of the tables of all sparse values, users' fields first, as far as the
            ranker has them: "embedding" [B, F, D] and "wide" [B, F, 1].
        arrays: Every dense input of the user and modality of the item [B, D] by its name;
            "present" bool [B, M], where there are modalities; "history_<modality>" [B, L, D],
            where the ranker reads them.
    """
    users, modalities = shapes.user_fields, [name for name, _ in shapes.modalities]
    if "embedding" in looked_up:
        embeddings = looked_up["embedding"]
    else:  # width 0
        batch = next(iter((looked_up or arrays).values())).shape[0]
        embeddings = jnp.zeros((batch, shapes.fields, 0), jnp.float32)
    history = (
        {name: arrays[HISTORY_OF + name] for name in modalities} if shapes.reads_history else None
    )
    return RankerInputs(
        user_embeddings=embeddings[:, :users],
        item_embeddings=embeddings[:, users:],
        wide=looked_up["wide"][..., 0] if "wide" in looked_up else None,
        user_dense={name: arrays[name] for name, _ in shapes.user_dense},
        modalities={name: arrays[name] for name in modalities},
        present=arrays.get(PRESENT),
        history=history,
    )


class RankerOutput(NamedTuple):
    """Logit [B] of the bookmark and weights [B, M] of the modalities (rows sum to 1; or M = 0)."""

    logit: Float[Array, " B"]
    weights: Float[Array, "B M"]


def ordered(what: str, given: Mapping[str, jax.Array], names: list[str]) -> list[jax.Array]:
    """The arrays in the order of the names.

    Raises:
        ValueError: Other names are given.
    """
    if set(given) != set(names):
        raise ValueError(
            f"ranker {what}: got {sorted(given)}, expected {sorted(names)}, the names of the config"
        )
    return [given[name] for name in names]
