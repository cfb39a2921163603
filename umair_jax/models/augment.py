"""Augmentation of drawings on the device: where things lie, and, for content alone, their paint."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

_LUMINANCE = (0.299, 0.587, 0.114)
_TECHNIQUES = (0.55, 0.15, 0.15, 0.15)  # shares of none, outlines, pen, print


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How far a drawing is moved. Nothing here changes how it is painted.

    Attributes:
        flip: Probability of a mirror image.
        rotate_degrees: Largest angle either way.
        scale: Smallest and largest size of the drawing on its square; 1 = as it is. Above 1 its
            edges are cropped.
        shift: Largest displacement either way, as a share of the square.
        background: Probability that white becomes a random light colour.
        repaint: Strength of the changes of colour, contrast, outline and sharpness that make a
            second view of a drawing with the same content and another style, in [0, 1]; see
            `repaint`. Only objectives that compare two views use it.
    """

    flip: float = 0.5
    rotate_degrees: float = 10.0
    scale: tuple[float, float] = (0.7, 1.2)
    shift: float = 0.1
    background: float = 0.2
    repaint: float = 1.0

    def __post_init__(self):
        for name in ("flip", "background", "repaint"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment {name}: got {getattr(self, name)}, expected 0 to 1")
        if not 0 <= self.rotate_degrees <= 180:
            raise ValueError(
                f"augment rotate_degrees: got {self.rotate_degrees}, expected 0 to 180"
            )
        if not 0 <= self.shift < 1:
            raise ValueError(f"augment shift: got {self.shift}, expected 0 to below 1")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"augment scale: got {self.scale}, expected a positive smallest and largest size"
            )


def move(
    key: Key[Array, ""], images: Float[Array, "B H W 3"], cfg: AugmentConfig
) -> Float[Array, "B H W 3"]:
    """Flips, turns, scales, shifts each image at random, on white, and tints the white.

    Args:
        key: Of the draws; each image has its own.
        images: Values in [0, 1], drawn on white.
        cfg: Ranges.
    """
    flip, angle, scale, shift, tint, colour = jax.random.split(key, 6)
    count = images.shape[0]
    angles = jnp.deg2rad(_uniform(angle, (count,), -cfg.rotate_degrees, cfg.rotate_degrees))
    sizes = jnp.exp(_uniform(scale, (count,), *map(math.log, cfg.scale)))
    mirrored = jnp.where(jax.random.bernoulli(flip, cfg.flip, (count,)), -1.0, 1.0)
    shifts = _uniform(shift, (count, 2), -cfg.shift, cfg.shift)
    moved = resample(images, angles, sizes, shifts, mirrored)
    tinted = jax.random.bernoulli(tint, cfg.background, (count, 1, 1, 1))
    light = _uniform(colour, (count, 1, 1, 3), 0.6, 1.0)
    # White is what has no darker channel; the soft edge keeps anti-aliasing.
    white = jnp.clip((moved.min(-1, keepdims=True) - 0.9) * 10, 0, 1)
    return jnp.where(tinted, moved * (1 - white) + moved * light * white, moved)


def resample(
    images: Float[Array, "B H W 3"],
    angles: Float[Array, " B"],
    sizes: Float[Array, " B"],
    shifts: Float[Array, "B 2"],
    mirrored: Float[Array, " B"],
) -> Float[Array, "B H W 3"]:
    """Turned, scaled, shifted and mirrored images, bilinear, white where nothing was.

    Args:
        images: Values in [0, 1].
        angles: Radians.
        sizes: 1 keeps the size, 2 doubles it.
        shifts: Of the centre, down and to the right, as shares of height and width.
        mirrored: -1 mirrors left and right, 1 does not.
    """
    _, height, width, _ = images.shape
    rows = jnp.arange(height) - (height - 1) / 2
    columns = jnp.arange(width) - (width - 1) / 2

    def one(image, angle, size, shift, mirror):
        # From where each pixel comes: the inverse of shift, then turn and size, then mirror.
        y = rows[:, None] - shift[0] * height
        x = columns[None, :] - shift[1] * width
        cos, sin = jnp.cos(angle) / size, jnp.sin(angle) / size
        source_y = cos * y - sin * x + (height - 1) / 2
        source_x = mirror * (sin * y + cos * x) + (width - 1) / 2
        return _bilinear(image, source_y, source_x)

    return jax.vmap(one)(images, angles, sizes, shifts, mirrored)


def _bilinear(
    image: Float[Array, "H W 3"], y: Float[Array, "H W"], x: Float[Array, "H W"]
) -> Float[Array, "H W 3"]:
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    row, column = top.astype(jnp.int32), left.astype(jnp.int32)

    def at(row, column):
        # A negative index would count from the end.
        outside = (row < 0) | (column < 0)
        row, column = (jnp.where(outside, jnp.iinfo(jnp.int32).max, i) for i in (row, column))
        return image.at[row, column].get(mode="fill", fill_value=1.0)

    upper = at(row, column) * (1 - right) + at(row, column + 1) * right
    lower = at(row + 1, column) * (1 - right) + at(row + 1, column + 1) * right
    return upper * (1 - down) + lower * down


def repaint(
    key: Key[Array, ""], images: Float[Array, "B H W 3"], strength: float
) -> Float[Array, "B H W 3"]:
    """The same drawings in other paint: palette, tone curve, outlines, shading, sharpness.

    Some become what another artist might have made of the subject: a pen drawing, a print in one
    colour, a flat drawing with outlines.

    Args:
        key: Of the draws; each image has its own.
        images: Values in [0, 1], drawn on white, which stays white.
        strength: 0 changes nothing, 1 as far as a drawing is still recognised.
    """
    keys = jax.random.split(key, 8)
    count, each = images.shape[0], (images.shape[0], 1, 1, 1)

    def normal(key, shape):
        return strength * jax.random.normal(key, shape)

    def some(key, share):
        return strength * jax.random.bernoulli(key, share, each)

    lightness = images.min(-1, keepdims=True)
    white = jnp.clip((lightness - 0.9) * 10, 0, 1)
    # Palette: mostly small, sometimes large mixtures of the channels' distances from white.
    spread = jnp.exp(_uniform(keys[0], (count, 1, 1), -2.5, -0.7))
    mixture = jnp.eye(3) + spread * normal(keys[1], (count, 3, 3))
    painted = 1 - jnp.einsum("bhwc,bdc->bhwd", 1 - images, mixture)
    luminance = (images @ jnp.array(_LUMINANCE))[..., None]
    painted += some(keys[2], 0.1) * (luminance - painted)
    # Tone curve.
    painted = jnp.clip(painted, 1e-3, 1) ** jnp.exp(0.3 * normal(keys[3], (count, 1, 1, 3)))
    # Sharper or softer.
    soft = _blurred(painted)
    painted += _uniform(keys[4], each, -strength, strength) * (painted - soft)
    # Shading from one side.
    ramp = jnp.linspace(0, 1, images.shape[1])[None, :, None, None]
    painted *= 1 - 0.3 * some(keys[6], 0.25) * ramp * (1 - white)
    # Other techniques: none, outlined, drawn with a pen, printed in black with lines left white.
    lines = jnp.clip(3 * (_slopes(images).max(-1, keepdims=True) - 0.06), 0, 1)
    wide = jax.random.bernoulli(keys[7], 0.5, each)
    lines = jnp.where(wide, _widened(lines), lines)
    inked = jnp.clip(5 * (0.95 - lightness), 0, 1)
    technique = jax.random.choice(keys[5], 4, each, p=jnp.array(_TECHNIQUES))
    made = (painted * (1 - lines), 1 - lines, 1 - inked * (1 - lines))
    for index, other in enumerate(made, start=1):
        painted += strength * (technique == index) * (other - painted)
    return jnp.clip(painted, 0, 1)


def _blurred(images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    for axis in (1, 2):
        around = jnp.roll(images, 1, axis) + jnp.roll(images, -1, axis)
        images = images / 2 + around / 4
    return images


def _slopes(images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    down, across = (jnp.roll(images, 1, axis) - jnp.roll(images, -1, axis) for axis in (1, 2))
    return jnp.abs(down) + jnp.abs(across)


def _widened(lines: Float[Array, "B H W 1"]) -> Float[Array, "B H W 1"]:
    for axis in (1, 2):
        lines = jnp.maximum(lines, jnp.maximum(jnp.roll(lines, 1, axis), jnp.roll(lines, -1, axis)))
    return lines


def _uniform(key: Key[Array, ""], shape: tuple[int, ...], low: float, high: float) -> jax.Array:
    return low + (high - low) * jax.random.uniform(key, shape)
