"""Painting style as a vector: maxima of Gram matrices over the blocks of one stage."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def gram_style(blocks: Sequence[Float[Array, "B H W C"]]) -> Float[Array, "B C"]:
    """Style vectors of feature maps.

    One running maximum is kept, so that a single C x C matrix per image is alive at a time,
    whatever the number of blocks.

    Args:
        blocks: Feature maps of one or more blocks, all with the same number of channels.

    Returns:
        float32 style vectors.

    Raises:
        ValueError: `blocks` is empty.

    Source: UMAIR-FPS, image encoder: G = F^T F / (H W) per block, maximum over one axis of G (the
    matrix is symmetric), element-wise maximum over the blocks. Computed in float32 whatever
    the dtype of the maps.
    """
    if not blocks:
        raise ValueError("gram_style: got no feature maps, expected at least one block.")
    style = None
    for block in blocks:
        _, height, width, _ = block.shape
        maps = block.astype(jnp.float32)
        gram = jnp.einsum("bhwc,bhwd->bcd", maps, maps, precision=jax.lax.Precision.HIGHEST)
        strongest = gram.max(axis=1) / (height * width)
        style = strongest if style is None else jnp.maximum(style, strongest)
    assert style is not None
    return style
