"""What all baselines share: their options and how sparse values and vectors come in.

A baseline is told to do without vectors by a schema that has none. Where it has them, every vector
is a plain dense input: it has a linear weight, stands beside the embeddings in front of deep and
cross networks, and is projected to one or more further fields where fields meet in pairs.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.fm import VectorFields
from umair_jax.models.inputs import InputShapes, RankerInputs, RankerOutput, ordered
from umair_jax.models.layers import DTYPES, MLP, Dense, check_choice
from umair_jax.models.wide import wide_logit


@dataclasses.dataclass(frozen=True)
class BaselineConfig(InputShapes):
    """Options of every baseline.

    Attributes:
        vector_fields: Fields, of the embeddings' width, that each vector is projected to.
        dtype: "float32" or "bfloat16": type of the matrix products' inputs.
    """

    vector_fields: int = 1
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("baseline dtype", self.dtype, tuple(DTYPES))
        if self.fields < 1:
            raise ValueError("baseline user_fields, item_fields: got none, expected at least one")
        if self.vector_fields < 1:
            raise ValueError(
                f"baseline vector_fields: got {self.vector_fields}, expected 1 or more"
            )

    @property
    def vector_widths(self) -> tuple[int, ...]:
        """Widths of all vectors, the users' first."""
        return tuple(width for _, width in (*self.user_dense, *self.modalities))

    @property
    def all_fields(self) -> int:
        """Sparse fields and projected vectors."""
        return self.fields + self.vector_fields * len(self.vector_widths)

    @property
    def flat_width(self) -> int:
        """Width of embeddings and vectors side by side."""
        return self.fields * self.embedding_width + sum(self.vector_widths)


@dataclasses.dataclass(frozen=True)
class DeepConfig(BaselineConfig):
    """Options of baselines with a multi-layer network.

    Attributes:
        hidden_widths: Its layers.
        dropout: Rate after each of them.
    """

    hidden_widths: tuple[int, ...] = (64, 32, 16)
    dropout: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not self.hidden_widths:
            raise ValueError("baseline hidden_widths: got none, expected at least one")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"baseline dropout: got {self.dropout}, expected 0 <= rate < 1")


def vectors(cfg: BaselineConfig, inputs: RankerInputs) -> list[jax.Array]:
    """All vectors [B, D_i], the users' first; zeros where a modality is missing, NaN or not.

    Raises:
        ValueError: The names are not those of the config.
    """
    users = ordered("user_dense", inputs.user_dense, [name for name, _ in cfg.user_dense])
    items = ordered("modalities", inputs.modalities, list(cfg.modality_names))
    if inputs.present is not None:
        items = [
            jnp.where(inputs.present[:, k, None], x, jnp.zeros((), x.dtype))
            for k, x in enumerate(items)
        ]
    return [*users, *items]


def embeddings(inputs: RankerInputs) -> Float[Array, "B F D"]:
    """Embeddings of all sparse fields, the users' first."""
    return jnp.concatenate([inputs.user_embeddings, inputs.item_embeddings], axis=1)


def flat_parts(cfg: BaselineConfig, inputs: RankerInputs) -> list[jax.Array]:
    """Embeddings and vectors as the parts of one row, [B, flat_width] in all."""
    rows = embeddings(inputs)
    return [rows.reshape(rows.shape[0], -1), *vectors(cfg, inputs)]


class FirstOrder(nnx.Module):
    """w0 + sum of the sparse values' weights + sum_v w_v . x_v: logistic regression."""

    def __init__(self, cfg: BaselineConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.bias = nnx.Param(jnp.zeros((), jnp.float32))
        if cfg.vector_widths:
            self.dense = Dense(sum(cfg.vector_widths), 1, rngs=rngs, use_bias=False)

    def __call__(self, inputs: RankerInputs) -> Float[Array, " B"]:
        """The logit.

        Raises:
            ValueError: The batch has no linear weights.
        """
        if inputs.wide is None:
            raise ValueError("baseline wide: got None, expected weights [B, F]")
        logit = wide_logit(inputs.wide) + self.bias[...]
        if self.cfg.vector_widths:
            logit = logit + self.dense(*vectors(self.cfg, inputs))[:, 0]
        return logit


class Fields(nnx.Module):
    """Embeddings and projected vectors as fields of one width [B, all_fields, D]."""

    def __init__(self, cfg: BaselineConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        if cfg.vector_widths:
            self.vectors = VectorFields(
                {_name(k): width for k, width in enumerate(cfg.vector_widths)},
                cfg.embedding_width,
                rngs=rngs,
                each=cfg.vector_fields,
                dtype=cfg.dtype,
            )

    def __call__(self, inputs: RankerInputs) -> Float[Array, "B F D"]:
        """The fields, those of the vectors last."""
        rows = embeddings(inputs)
        if not self.cfg.vector_widths:
            return rows
        named = {_name(k): x for k, x in enumerate(vectors(self.cfg, inputs))}
        return jnp.concatenate([rows, self.vectors(named)], axis=1)


def _name(index: int) -> str:
    """A user and an item may have a vector of one name: vectors go by their place."""
    return f"vector_{index}"


class DeepLogit(nnx.Module):
    """A multi-layer network over the concatenation of its inputs, and a logit without bias."""

    def __init__(self, inputs: int, cfg: DeepConfig, *, rngs: nnx.Rngs):
        self.mlp = MLP(inputs, cfg.hidden_widths, rngs=rngs, rate=cfg.dropout, dtype=cfg.dtype)
        self.out = Dense(cfg.hidden_widths[-1], 1, rngs=rngs, use_bias=False)

    def __call__(
        self,
        *parts: Float[Array, "B _"],
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> Float[Array, " B"]:
        """The logit; see `MLP`."""
        return self.out(self.mlp(*parts, train=train, key=key, weight=weight))[:, 0]


def output(logit: Float[Array, " B"]) -> RankerOutput:
    """The logit of a ranker that gives its modalities no weights."""
    return RankerOutput(logit, jnp.zeros((logit.shape[0], 0), jnp.float32))
