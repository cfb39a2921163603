"""Two towers: a vector for a user and one for an item, whose product says how well they fit."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.inputs import InputShapes, RankerInputs, ordered
from umair_jax.models.layers import DTYPES, MLP, Dense, check_choice, split_key
from umair_jax.models.losses import unit


@dataclasses.dataclass(frozen=True)
class TwoTowerConfig(InputShapes):
    """Every option of the two towers.

    Attributes:
        tower_widths: Hidden layers of either tower.
        modality_width: Width of every projected modality.
        width: Numbers of a user's and of an item's vector.
        normalise: Whether these vectors have length 1.
        temperature: Divides the products in the loss.
        learn_temperature: Whether training changes the temperature, which then starts there.
        freshness: Whether newer items are preferred by a rate that training finds; see `rate`.
        dropout: Rate after every hidden layer.
        dtype: "float32" or "bfloat16": type of the matrix products' inputs. Parameters,
            statistics and the vectors are float32 in both cases.
    """

    tower_widths: tuple[int, ...] = (256, 128)
    modality_width: int = 64
    width: int = 64
    normalise: bool = True
    temperature: float = 0.1
    learn_temperature: bool = False
    freshness: bool = True
    dropout: float = 0.0
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("two towers dtype", self.dtype, tuple(DTYPES))
        if not self.tower_widths or min(*self.tower_widths, self.modality_width, self.width) < 1:
            raise ValueError(
                f"two towers: got tower_widths {self.tower_widths}, modality_width "
                f"{self.modality_width}, width {self.width}; expected at least one hidden layer, "
                "and widths of 1 or more"
            )
        if not self.temperature > 0:
            raise ValueError(
                f"two towers temperature: got {self.temperature}, expected above 0; the smaller, "
                "the sharper"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"two towers dropout: got {self.dropout}, expected 0 <= rate < 1")
        if self.user_fields + len(self.user_dense) < 1:
            raise ValueError("two towers user_fields, user_dense: got none, expected at least one")
        if self.item_fields + len(self.modalities) < 1:
            raise ValueError("two towers item_fields, modalities: got none, expected at least one")

    @property
    def tables(self) -> tuple[str, ...]:
        """There is no wide part."""
        return ("embedding",)

    def create(self, rngs: nnx.Rngs) -> TwoTower:
        """The towers."""
        return TwoTower(self, rngs=rngs)


class Tower(nnx.Module):
    """Hidden layers as in the ranker, then an affine layer to the vector."""

    def __init__(self, inputs: int, cfg: TwoTowerConfig, *, rngs: nnx.Rngs):
        self.hidden = MLP(inputs, cfg.tower_widths, rngs=rngs, rate=cfg.dropout, dtype=cfg.dtype)
        # Always float32: the vectors are not rounded.
        self.out = Dense(cfg.tower_widths[-1], cfg.width, rngs=rngs)
        self.normalise = cfg.normalise

    def __call__(
        self,
        *inputs: Float[Array, "B _"],
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B D"]:
        """Vectors of the concatenation of the inputs; see `MLP`."""
        y = self.out(self.hidden(*inputs, train=train, key=key, weight=weight))
        return unit(y) if self.normalise else y


class TwoTower(nnx.Module):
    """A user tower and an item tower that know nothing of each other.

    Hence the vectors of a whole catalogue can be made once and searched for every user.

    Source: Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations, figure 2; the users' history are means of vectors here.
    """

    def __init__(self, cfg: TwoTowerConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        embeddings = cfg.embedding_width
        user_dense = sum(width for _, width in cfg.user_dense)
        self.user_tower = Tower(cfg.user_fields * embeddings + user_dense, cfg, rngs=rngs)
        self.projections = nnx.Dict()
        for name, width in cfg.modalities:
            self.projections[name] = Dense(width, cfg.modality_width, rngs=rngs, dtype=cfg.dtype)
        projected = len(cfg.modalities) * cfg.modality_width
        self.item_tower = Tower(cfg.item_fields * embeddings + projected, cfg, rngs=rngs)
        if cfg.learn_temperature:
            # Named as what weight decay leaves alone.
            self.log_scale = nnx.Param(jnp.full((), -math.log(cfg.temperature), jnp.float32))
        if cfg.freshness:
            self.age_bias = nnx.Param(jnp.zeros((), jnp.float32))

    def users(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B D"]:
        """Vectors of the users, from their embeddings and dense inputs alone.

        Args:
            inputs: The batch.
            train: Batch statistics (then vectors do depend on the batch) and dropout on.
            key: Source of the dropout; needed in training where the rate is above 0.
            weight: Weight of each example in the batch statistics, 0 for padding; None = 1.

        Returns:
            Float32 array [B, width], rows of length 1 if the config says so.

        Raises:
            ValueError: The names of the dense inputs are not those of the config.
        """
        names = [name for name, _ in self.cfg.user_dense]
        parts = ordered("user_dense", inputs.user_dense, names)
        if self.cfg.user_fields:
            parts = [_flat(inputs.user_embeddings), *parts]
        return self.user_tower(*parts, train=train, key=key, weight=weight)

    def items(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B D"]:
        """Vectors of the items, from their embeddings and modalities alone.

        What a modality holds where it is missing does not matter, NaN included: it counts as zeros.

        Args:
            inputs: The batch.
            train: As for `users`.
            key: As for `users`.
            weight: As for `users`.

        Returns:
            Float32 array [B, width], rows of length 1 if the config says so.

        Raises:
            ValueError: The names of the modalities are not those of the config.
        """
        names = [name for name, _ in self.cfg.modalities]
        parts = [_flat(inputs.item_embeddings)] if self.cfg.item_fields else []
        for index, x in enumerate(ordered("modalities", inputs.modalities, names)):
            here = None if inputs.present is None else inputs.present[:, index, None]
            # Before the product: 0 times NaN would reach the kernel's gradient.
            x = x if here is None else jnp.where(here, x, jnp.zeros((), x.dtype))
            y = jax.nn.relu(self.projections[names[index]](x))
            parts.append(y if here is None else jnp.where(here, y, 0.0))
        return self.item_tower(*parts, train=train, key=key, weight=weight)

    def both(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
        """Vectors of the users and of the items of a batch; see `users` and `items`."""
        user_key, item_key = split_key(key, 2)
        users = self.users(inputs, train, user_key, weight)
        return users, self.items(inputs, train, item_key, weight)

    def scale(self) -> Float[Array, ""]:
        """What multiplies the products in the loss: 1 / temperature, at most 100 if learned."""
        if not self.cfg.learn_temperature:
            return jnp.float32(1.0 / self.cfg.temperature)
        # Source of the limit: Radford et al. 2021, CLIP, section 2.5.
        return jnp.exp(jnp.minimum(self.log_scale[...], math.log(100.0)))

    def rate(self) -> Float[Array, ""]:
        """By how much the logit of an item falls with each day of its age; 0 without freshness.

        Exponential decay of interest, hence an item's own term: that of a day's difference is the
        same whenever one asks, and a vector's further number carries it.

        Source: the age as an input of Covington et al. 2016, Deep Neural Networks for YouTube
        Recommendations, section 3.3; linear here, so that it says something of tomorrow.
        """
        return self.age_bias[...] if self.cfg.freshness else jnp.float32(0.0)


def _flat(embeddings: Float[Array, "B F D"]) -> Float[Array, "B FD"]:
    return embeddings.reshape(embeddings.shape[0], -1)
