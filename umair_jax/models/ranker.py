"""UMAIR-FPS's ranker: will this user bookmark this drawing, and which of its sides decides?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from umair_jax.models.cross import CrossConfig, CrossNetwork
from umair_jax.models.fm import VectorFields, fm_logit
from umair_jax.models.inputs import InputShapes, RankerInputs, RankerOutput, ordered
from umair_jax.models.layers import DTYPES, MLP, BatchNorm, Dense, check_choice, split_key
from umair_jax.models.umcm import UMCM, Fusion, UMCMConfig, present_or_first
from umair_jax.models.wide import wide_logit

META = "meta"


@dataclasses.dataclass(frozen=True)
class RankerConfig(InputShapes):
    """Every option of the ranker; the defaults are those of the paper.

    Attributes:
        meta: Whether the item's embeddings are a modality, "meta", before all others.
        tower_widths: Layers of the user tower and of the tower of "meta".
        modality_width: Width of every projected modality; the last layer of the "meta" tower has
            it in place of its own. Must equal the last tower width where attention is used.
        dropout: Rate after every layer of the towers and the head.
        umcm: Fusion of the modalities: attention, senet, mixture, static or none.
        umcm_experts: Experts of the mixture, any number of "attention" and "senet".
        attention_dropout: Rate on the attention weights.
        cross: Cross network: none, vector, matrix, low_rank or mixture.
        cross_layers: Its layers.
        cross_rank: Its rank, where it has one.
        cross_experts: Experts of the mixture.
        residual: relu(BatchNorm(z + cross(z))) in place of cross(z).
        head_widths: Layers between the cross network and the logit.
        wide: Whether the linear model over the sparse values is added to the logit.
        fm: Factorisation machine that is added to the logit: none; embeddings, over all of them;
            vectors, over all embeddings and a projection of each dense input.
        modality_norm: Whether a BatchNorm follows the projection of each dense modality.
        dtype: "float32" or "bfloat16": type of the matrix products' inputs. Parameters,
            statistics, soft-maxes and the logit are float32 in both cases.
    """

    meta: bool = True
    tower_widths: tuple[int, ...] = (128, 64)
    modality_width: int = 64
    dropout: float = 0.5
    umcm: str = "attention"
    umcm_experts: tuple[str, ...] = ("attention", "senet")
    attention_dropout: float = 0.5
    cross: str = "mixture"
    cross_layers: int = 2
    cross_rank: int = 32
    cross_experts: int = 4
    residual: bool = False
    head_widths: tuple[int, ...] = (64, 32, 16)
    wide: bool = True
    fm: str = "none"
    modality_norm: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("ranker dtype", self.dtype, tuple(DTYPES))
        check_choice("ranker fm", self.fm, ("none", "embeddings", "vectors"))
        if self.fm == "vectors" and not (self.user_dense or self.modalities):
            raise ValueError("ranker fm: got vectors, but there are none; expected embeddings")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"ranker dropout: got {self.dropout}, expected 0 <= rate < 1")
        if not self.tower_widths or not self.head_widths:
            raise ValueError("ranker tower_widths, head_widths: got none, expected at least one")
        if not self.modality_names:
            raise ValueError("ranker modalities: got none; name one, or set meta=True")
        if len(set(self.modality_names)) != len(self.modality_names):
            raise ValueError(
                f"ranker modalities: got {list(self.modality_names)}, expected each name once "
                f"({META!r} is the item's own embeddings)"
            )
        if self.meta and self.item_fields < 1:
            raise ValueError("ranker item_fields: got 0, expected at least 1, or meta=False")
        if self.user_fields + len(self.user_dense) < 1:
            raise ValueError("ranker user_fields, user_dense: got none, expected at least one")
        _ = self.umcm_config, self.cross_config  # their own checks

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of the weights."""
        return ((META,) if self.meta else ()) + tuple(name for name, _ in self.modalities)

    @property
    def weighted(self) -> tuple[str, ...]:
        """Every modality has a weight."""
        return self.modality_names

    @property
    def tables(self) -> tuple[str, ...]:
        """The wide weights only where there is a wide part."""
        return ("embedding", "wide") if self.wide else ("embedding",)

    def create(self, rngs: nnx.Rngs) -> Ranker:
        """The ranker."""
        return Ranker(self, rngs=rngs)

    @property
    def umcm_config(self) -> UMCMConfig:
        """The options of the fusion."""
        return UMCMConfig(self.umcm, self.umcm_experts, self.attention_dropout)

    @property
    def cross_config(self) -> CrossConfig:
        """The options of the cross network."""
        return CrossConfig(
            self.cross, self.cross_layers, self.cross_rank, self.cross_experts, self.dtype
        )


class Ranker(nnx.Module):
    """Towers -> contribution of each modality -> crosses -> logit.

    Calling it does everything. The four steps are public, so that a caller can project each
    distinct user or item once, gather, and go on with `fuse` and `score`; in training, give the
    number of examples behind each distinct row as `weight` to keep the batch statistics the same.
    """

    def __init__(self, cfg: RankerConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        fields = cfg.embedding_width
        rate, dtype = cfg.dropout, cfg.dtype
        user_inputs = cfg.user_fields * fields + sum(width for _, width in cfg.user_dense)
        self.user_tower = MLP(user_inputs, cfg.tower_widths, rngs=rngs, rate=rate, dtype=dtype)
        if cfg.meta:
            widths = (*cfg.tower_widths[:-1], cfg.modality_width)
            self.meta_tower = MLP(
                cfg.item_fields * fields, widths, rngs=rngs, rate=rate, dtype=dtype
            )
        self.projections = nnx.Dict()
        self.norms = nnx.Dict()
        for name, width in cfg.modalities:
            self.projections[name] = Dense(width, cfg.modality_width, rngs=rngs, dtype=cfg.dtype)
            if cfg.modality_norm:
                self.norms[name] = BatchNorm(cfg.modality_width)
        if cfg.fm == "vectors":
            widths = {**dict(cfg.user_dense), **dict(cfg.modalities)}
            self.fields = VectorFields(widths, fields, rngs=rngs, dtype=dtype)
        user_width = cfg.tower_widths[-1]
        self.umcm = UMCM(
            cfg.umcm_config, user_width, len(cfg.modality_names), cfg.modality_width, rngs=rngs
        )
        width = self.umcm.output_width + user_width
        self.cross = CrossNetwork(width, cfg.cross_config, rngs=rngs)
        if cfg.residual:
            self.residual_norm = BatchNorm(width)
        self.head = MLP(width, cfg.head_widths, rngs=rngs, rate=rate, dtype=dtype)
        # Always float32: the logit is not rounded.
        self.out = Dense(cfg.head_widths[-1], 1, rngs=rngs, use_bias=False)

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch of (user, item) pairs, each independently of the others.

        Args:
            inputs: The batch.
            train: Batch statistics (then predictions do depend on the batch) and dropout on.
            key: Source of the dropout; needed in training where a rate is above 0.
            weight: Weight of each example in the batch statistics, 0 for padding; None = 1.

        Returns:
            Logits and modality weights, float32.
        """
        user_key, item_key, fuse_key, score_key = split_key(key, 4)
        user = self.encode_user(inputs.user_embeddings, inputs.user_dense, train, user_key, weight)
        items = self.encode_items(
            inputs.item_embeddings, inputs.modalities, inputs.present, train, item_key, weight
        )
        fused, weights = self.fuse(user, items, inputs.present, train, fuse_key)
        logit = self.score(fused, user, train, score_key, weight)
        return RankerOutput(logit + self.shallow_logit(inputs), weights)

    def encode_user(
        self,
        user_embeddings: Float[Array, "B Fu D"],
        user_dense: Mapping[str, Float[Array, "B _"]],
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B U"]:
        """User vectors [B, last tower width], float32.

        Raises:
            ValueError: The names in `user_dense` are not those of the config.
        """
        parts = list(_named("user_dense", user_dense, self.cfg.user_dense).values())
        if self.cfg.user_fields:
            parts = [user_embeddings.reshape(user_embeddings.shape[0], -1), *parts]
        return self.user_tower(*parts, train=train, key=key, weight=weight)

    def encode_items(
        self,
        item_embeddings: Float[Array, "B Fi D"],
        modalities: Mapping[str, Float[Array, "B _"]],
        present: Bool[Array, "B M"] | None = None,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B M W"]:
        """Projected modalities [B, M, modality width], float32; zero where missing.

        What `modalities` holds at a missing place does not matter, NaN included.

        Raises:
            ValueError: The names in `modalities` are not those of the config.
        """
        vectors = self.known_vectors(modalities, present)
        filled = None if present is None else present_or_first(present)
        outputs = []
        for index, name in enumerate(self.cfg.modality_names):
            here = None if filled is None else filled[:, index]
            counted = weight
            if here is not None:
                counted = here.astype(jnp.float32) * (1.0 if weight is None else weight)
            if self.cfg.meta and name == META:
                flat = item_embeddings.reshape(item_embeddings.shape[0], -1)
                y = self.meta_tower(flat, train=train, key=key, weight=counted)
            else:
                y = jax.nn.relu(self.projections[name](vectors[name]))
                if self.cfg.modality_norm:
                    y = self.norms[name](y, train, counted)
            outputs.append(y if here is None else jnp.where(here[:, None], y, 0.0))
        return jnp.stack(outputs, axis=1)

    def fuse(
        self,
        user: Float[Array, "B U"],
        items: Float[Array, "B M W"],
        present: Bool[Array, "B M"] | None = None,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Fusion:
        """Fused item vectors and modality weights; see `UMCM`."""
        return self.umcm(user, items, present, train=train, key=key)

    def score(
        self,
        fused: Float[Array, "B _"],
        user: Float[Array, "B U"],
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> Float[Array, " B"]:
        """Deep part of the logit: crosses of [fused, user], then the head."""
        z = jnp.concatenate([fused, user], axis=-1)
        crossed = self.cross(z)
        if self.cfg.residual:
            crossed = jax.nn.relu(self.residual_norm(crossed + z, train, weight))
        hidden = self.head(crossed, train=train, key=key, weight=weight)
        return self.out(hidden)[:, 0]

    def shallow_logit(self, inputs: RankerInputs) -> Float[Array, " B"]:
        """Wide part and factorisation machine of the logit, as far as the config has them.

        Raises:
            ValueError: The config has a wide part, but the batch no linear weights; or its names
                are not those of the config.
        """
        users, items = inputs.user_embeddings, inputs.item_embeddings
        logit = jnp.zeros((items.shape[0],), jnp.float32)
        if self.cfg.wide:
            if inputs.wide is None:
                raise ValueError(
                    "ranker wide: got None, expected weights [B, F]; or set wide=False"
                )
            logit = logit + wide_logit(inputs.wide)
        if self.cfg.fm == "embeddings":
            logit = logit + fm_logit(items, users)
        if self.cfg.fm == "vectors":
            dense = _named("user_dense", inputs.user_dense, self.cfg.user_dense)
            vectors = self.known_vectors(inputs.modalities, inputs.present)
            logit = logit + fm_logit(items, users, self.fields({**dense, **vectors}))
        return logit

    def known_vectors(
        self, modalities: Mapping[str, Float[Array, "B _"]], present: Bool[Array, "B M"] | None
    ) -> dict[str, jax.Array]:
        """The dense modalities by name; zeros where they are missing, NaN or not."""
        vectors = _named("modalities", modalities, self.cfg.modalities)
        if present is None:
            return vectors
        # Before any product: 0 times NaN would reach the kernel's gradient. By `present` itself,
        # since what an empty row falls back to may be NaN too.
        columns = {name: present[:, k, None] for k, name in enumerate(self.cfg.modality_names)}
        return {
            name: jnp.where(columns[name], x, jnp.zeros((), x.dtype)) for name, x in vectors.items()
        }


def _named(
    what: str, given: Mapping[str, jax.Array], expected: tuple[tuple[str, int], ...]
) -> dict[str, jax.Array]:
    """The arrays by name, in the order of the config; see `ordered`."""
    names = [name for name, _ in expected]
    return dict(zip(names, ordered(what, given, names), strict=True))
