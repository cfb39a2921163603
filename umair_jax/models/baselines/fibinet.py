"""FiBiNET: fields re-weighted by squeeze-excitation, and bilinear products of their pairs."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.baselines.features import (
    DeepConfig,
    DeepLogit,
    Fields,
    FirstOrder,
    output,
    vectors,
)
from umair_jax.models.inputs import RankerInputs, RankerOutput
from umair_jax.models.layers import check_choice

BILINEAR = ("all", "each", "interaction")


@dataclasses.dataclass(frozen=True)
class FiBiNETConfig(DeepConfig):
    """Options of FiBiNET.

    Attributes:
        bilinear: One matrix for all pairs, one for each first field, or one for each pair.
        reduction: Fields / reduction = width of the squeeze-excitation.
    """

    bilinear: str = "each"
    reduction: int = 3

    def __post_init__(self):
        super().__post_init__()
        check_choice("fibinet bilinear", self.bilinear, BILINEAR)
        if self.reduction < 1:
            raise ValueError(f"fibinet reduction: got {self.reduction}, expected at least 1")

    def create(self, rngs: nnx.Rngs) -> FiBiNET:
        """The ranker."""
        return FiBiNET(self, rngs=rngs)


class FieldExcitation(nnx.Module):
    """x_f relu(W2 relu(W1 z))_f, z = the fields' means.

    Source: Huang et al., FiBiNET (RecSys 2019), equations 1 to 3.
    """

    def __init__(self, fields: int, reduction: int, *, rngs: nnx.Rngs):
        init, width = nnx.initializers.glorot_uniform(), max(1, fields // reduction)
        self.squeeze = nnx.Param(init(rngs.params(), (fields, width), jnp.float32))
        self.excite = nnx.Param(init(rngs.params(), (width, fields), jnp.float32))

    def __call__(self, x: Float[Array, "B F D"]) -> Float[Array, "B F D"]:
        """The re-weighted fields."""
        hidden = jax.nn.relu(x.mean(axis=-1) @ self.squeeze[...])
        return x * jax.nn.relu(hidden @ self.excite[...])[..., None]


class Bilinear(nnx.Module):
    """p_fg = (x_f W) * x_g for all pairs f < g.

    Source: ibid., equations 6 to 8: W is shared by all, belongs to f, or to the pair.
    """

    def __init__(self, fields: int, width: int, kind: str, *, rngs: nnx.Rngs):
        check_choice("bilinear kind", kind, BILINEAR)
        self.kind = kind
        pairs = np.array(list(itertools.combinations(range(fields), 2)), np.int32).reshape(-1, 2)
        self.left, self.right = map(tuple, pairs.T.tolist())
        init = nnx.initializers.glorot_uniform()
        count = {"all": 1, "each": max(1, fields - 1), "interaction": len(pairs)}[kind]
        kernels = [init(rngs.params(), (width, width), jnp.float32) for _ in range(count)]
        self.kernel = nnx.Param(jnp.stack(kernels))

    def __call__(self, x: Float[Array, "B F D"]) -> Float[Array, "B P D"]:
        """One row for each pair, in the order of itertools.combinations."""
        left, right = np.array(self.left), np.array(self.right)
        kernel = self.kernel[...]
        if self.kind == "all":
            return (x @ kernel[0])[:, left] * x[:, right]
        if self.kind == "each":
            turned = jnp.einsum("bfd,fde->bfe", x[:, : len(kernel)], kernel)
            return turned[:, left] * x[:, right]
        return jnp.einsum("bpd,pde->bpe", x[:, left], kernel) * x[:, right]


class FiBiNET(nnx.Module):
    """logit = first order + w . MLP([bilinear(fields), bilinear(re-weighted fields), vectors]).

    Source: ibid., equations 9 and 10.
    """

    def __init__(self, cfg: FiBiNETConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        fields, width = cfg.all_fields, cfg.embedding_width
        self.first_order = FirstOrder(cfg, rngs=rngs)
        self.fields = Fields(cfg, rngs=rngs)
        self.excitation = FieldExcitation(fields, cfg.reduction, rngs=rngs)
        self.pairs = Bilinear(fields, width, cfg.bilinear, rngs=rngs)
        self.excited_pairs = Bilinear(fields, width, cfg.bilinear, rngs=rngs)
        inputs = fields * (fields - 1) * width + sum(cfg.vector_widths)
        self.deep = DeepLogit(inputs, cfg, rngs=rngs)

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch; see `Ranker`."""
        x = self.fields(inputs)
        both = self.pairs(x), self.excited_pairs(self.excitation(x))
        parts = [rows.reshape(x.shape[0], -1) for rows in both]
        parts += vectors(self.cfg, inputs)
        deep = self.deep(*parts, train=train, key=key, weight=weight)
        return output(self.first_order(inputs) + deep)
