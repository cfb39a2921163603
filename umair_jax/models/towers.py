"""The ranker cut in two towers and a head, so that either side is computed once and kept.

What a side gives is all that the head needs of it: its vectors, and its part of the logit's shallow
terms, which are sums over both sides. Inference only.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from umair_jax.models.fm import fm_from_sums, fm_sums
from umair_jax.models.inputs import PRESENT, RankerOutput
from umair_jax.models.ranker import Ranker
from umair_jax.models.wide import wide_logit

USER, ITEM = "user", "item"
WIDE, SUM, SQUARES = "wide", "fm_sum", "fm_squares"


def user_tower(
    model: Ranker,
    embeddings: Float[Array, "B Fu D"],
    wide: Float[Array, "B Fu"] | None,
    dense: Mapping[str, Float[Array, "B _"]],
) -> dict[str, jax.Array]:
    """The user's side.

    Args:
        model: The ranker.
        embeddings: Of the users' sparse fields.
        wide: Linear weights of these; None without a wide part.
        dense: The users' dense inputs by name.

    Returns:
        "user" [B, U]; with a wide part "wide" [B]; with a factorisation machine "fm_sum" [B, D]
        and "fm_squares" [B]; float32.
    """
    encoded = model.encode_user(embeddings, dense)
    return {USER: encoded, **_shallow(model, embeddings, wide, dense)}


def item_tower(
    model: Ranker,
    embeddings: Float[Array, "B Fi D"],
    wide: Float[Array, "B Fi"] | None,
    modalities: Mapping[str, Float[Array, "B _"]],
    present: Bool[Array, "B M"],
) -> dict[str, jax.Array]:
    """The item's side.

    Args:
        model: The ranker.
        embeddings: Of the items' sparse fields.
        wide: Linear weights of these; None without a wide part.
        modalities: The dense modalities by name.
        present: Which modalities exist.

    Returns:
        "item" [B, M, W] and "present" as given; the rest as for the user.
    """
    encoded = model.encode_items(embeddings, modalities, present)
    vectors = model.known_vectors(modalities, present)
    return {ITEM: encoded, PRESENT: present, **_shallow(model, embeddings, wide, vectors)}


def match(model: Ranker, user: Mapping[str, Array], item: Mapping[str, Array]) -> RankerOutput:
    """Logits and modality weights of pairs from what the towers gave for each of the two."""
    fused, weights = model.fuse(user[USER], item[ITEM], item[PRESENT])
    logit = model.score(fused, user[USER])
    if WIDE in user:
        logit = logit + user[WIDE] + item[WIDE]
    if SUM in user:
        logit = logit + fm_from_sums(user[SUM] + item[SUM], user[SQUARES] + item[SQUARES])
    return RankerOutput(logit, weights)


def _shallow(
    model: Ranker, embeddings: Array, wide: Array | None, vectors: Mapping[str, Array]
) -> dict[str, jax.Array]:
    cfg, found = model.cfg, {}
    if cfg.wide:
        if wide is None:
            raise ValueError("ranker wide: got None, expected weights [B, F]; or set wide=False")
        found[WIDE] = wide_logit(wide)
    if cfg.fm != "none":
        groups = [embeddings]
        if cfg.fm == "vectors" and vectors:
            groups.append(model.fields(vectors))
        found[SUM], found[SQUARES] = fm_sums(*groups)
    return {name: jnp.asarray(x) for name, x in found.items()}
