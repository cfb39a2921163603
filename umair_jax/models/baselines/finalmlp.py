"""FinalMLP: two multi-layer networks over gated inputs, and a bilinear fusion of both."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.baselines.features import BaselineConfig, flat_parts, output
from umair_jax.models.inputs import RankerInputs, RankerOutput
from umair_jax.models.layers import MLP, Dense, check_choice, split_key

CONTEXTS = ("learned", "sides")


@dataclasses.dataclass(frozen=True)
class FinalMLPConfig(BaselineConfig):
    """Options of FinalMLP.

    Attributes:
        first_widths: Layers of the first network; the last one is bare, without ReLU.
        second_widths: Of the second one.
        dropout: Rate after every other layer.
        heads: Blocks of the bilinear fusion; divide the last widths.
        context: What gates the inputs: "learned" vectors, the same for every example, or the
            user's embeddings for the first network and the item's for the second ("sides").
    """

    first_widths: tuple[int, ...] = (512, 512, 512, 512, 256, 256, 128, 128)
    second_widths: tuple[int, ...] = (128, 128, 64, 64, 32, 32)
    dropout: float = 0.5
    heads: int = 2
    context: str = "learned"

    def __post_init__(self):
        super().__post_init__()
        check_choice("finalmlp context", self.context, CONTEXTS)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"finalmlp dropout: got {self.dropout}, expected 0 <= rate < 1")
        for name in ("first_widths", "second_widths"):
            widths = getattr(self, name)
            if len(widths) < 2 or self.heads < 1 or widths[-1] % self.heads:
                raise ValueError(
                    f"finalmlp {name}: got {widths} and {self.heads} heads, expected two or more "
                    "widths, and heads that divide the last one"
                )
        if self.context == "sides" and not (self.user_fields and self.item_fields):
            raise ValueError("finalmlp context: got 'sides', expected fields of users and items")

    @property
    def tables(self) -> tuple[str, ...]:
        """It has no first order."""
        return ("embedding",)

    def create(self, rngs: nnx.Rngs) -> FinalMLP:
        """The ranker."""
        return FinalMLP(self, rngs=rngs)


class BilinearFusion(nnx.Module):
    """b + w1 . o1 + w2 . o2 + sum_h o1_h^T W_h o2_h, o_h the h-th block.

    Source: Mao et al., FinalMLP (AAAI 2023), equations 8 to 10. One bias, the sum of the heads'.
    """

    def __init__(self, first: int, second: int, heads: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.glorot_uniform()
        self.heads = heads
        self.bias = nnx.Param(jnp.zeros((), jnp.float32))
        self.first = Dense(first, 1, rngs=rngs, use_bias=False)
        self.second = Dense(second, 1, rngs=rngs, use_bias=False)
        shape = (heads, first // heads, second // heads)
        self.both = nnx.Param(init(rngs.params(), shape, jnp.float32))

    def __call__(
        self, first: Float[Array, "B _"], second: Float[Array, "B _"]
    ) -> Float[Array, " B"]:
        """The logit."""
        one = first.reshape(first.shape[0], self.heads, -1)
        two = second.reshape(second.shape[0], self.heads, -1)
        products = jnp.einsum("bhi,hij,bhj->b", one, self.both[...], two)
        return self.bias[...] + self.first(first)[:, 0] + self.second(second)[:, 0] + products


class Stream(nnx.Module):
    """MLP(x * 2 sigmoid(W context + b)), its last layer bare.

    Source: ibid., equations 4 and 5.
    """

    def __init__(
        self, context: int, cfg: FinalMLPConfig, widths: tuple[int, ...], *, rngs: nnx.Rngs
    ):
        if cfg.context == "learned":
            self.context = nnx.Param(jnp.zeros((1, context), jnp.float32))
        self.gate = Dense(context, cfg.flat_width, rngs=rngs)
        self.mlp = MLP(cfg.flat_width, widths[:-1], rngs=rngs, rate=cfg.dropout, dtype=cfg.dtype)
        self.out = Dense(widths[-2], widths[-1], rngs=rngs, dtype=cfg.dtype)
        self.learned = cfg.context == "learned"

    def __call__(
        self,
        x: Float[Array, "B _"],
        context: Float[Array, "B _"],
        train: bool,
        key: jax.Array | None,
        weight: Float[Array, " B"] | None,
    ) -> Float[Array, "B _"]:
        """The stream's last layer; `context` is not read where it is learned."""
        gate = self.gate(self.context[...] if self.learned else context)
        gated = x * (2.0 * jax.nn.sigmoid(gate))
        return self.out(self.mlp(gated, train=train, key=key, weight=weight))


class FinalMLP(nnx.Module):
    """logit = fusion of two gated streams over [embeddings, vectors].

    Source: Mao et al., FinalMLP (AAAI 2023).
    """

    def __init__(self, cfg: FinalMLPConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        width = cfg.embedding_width
        contexts = (cfg.user_fields * width, cfg.item_fields * width)
        if cfg.context == "learned":
            contexts = (cfg.fields, cfg.fields)
        self.first = Stream(contexts[0], cfg, cfg.first_widths, rngs=rngs)
        self.second = Stream(contexts[1], cfg, cfg.second_widths, rngs=rngs)
        self.fusion = BilinearFusion(
            cfg.first_widths[-1], cfg.second_widths[-1], cfg.heads, rngs=rngs
        )

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch; see `Ranker`."""
        x = jnp.concatenate(flat_parts(self.cfg, inputs), axis=-1)
        user = inputs.user_embeddings.reshape(x.shape[0], -1)
        item = inputs.item_embeddings.reshape(x.shape[0], -1)
        one, two = split_key(key, 2)
        first = self.first(x, user, train, one, weight)
        second = self.second(x, item, train, two, weight)
        return output(self.fusion(first, second))
