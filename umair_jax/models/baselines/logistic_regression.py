"""Logistic regression: one weight for every value of a field, one for every number of a vector."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.baselines.features import BaselineConfig, FirstOrder, output
from umair_jax.models.inputs import RankerInputs, RankerOutput


@dataclasses.dataclass(frozen=True)
class LogisticRegressionConfig(BaselineConfig):
    """Options of LogisticRegression: none of its own."""

    @property
    def tables(self) -> tuple[str, ...]:
        """It has no embeddings."""
        return ("wide",)

    def create(self, rngs: nnx.Rngs) -> LogisticRegression:
        """The ranker."""
        return LogisticRegression(self, rngs=rngs)


class LogisticRegression(nnx.Module):
    """logit = w0 + sum_f w_f[x_f] + sum_v w_v . x_v.

    Source: Richardson et al., Predicting Clicks (WWW 2007).
    """

    def __init__(self, cfg: LogisticRegressionConfig, *, rngs: nnx.Rngs):
        self.first_order = FirstOrder(cfg, rngs=rngs)

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch; `train`, `key` and `weight` change nothing."""
        return output(self.first_order(inputs))
