"""Vectors that need no network: what an encoder has to beat."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32, UInt8

from umair_jax.data import images as image_files
from umair_jax.encoding import Pictures

HISTOGRAM, PIXELS = "colour_histogram", "pixels"
WHAT = {
    HISTOGRAM: "square roots of the shares of 8 x 8 x 8 RGB bins, over all pixels at 128 x 128",
    PIXELS: "the picture at 16 x 16, RGB",
}
_BINS, _SIDE, _SMALL = 8, 128, 16


def baselines(
    pictures: Pictures, count: int, pool: ThreadPoolExecutor, pixel_limit: int
) -> dict[str, Float32[np.ndarray, "N D"]]:
    """Both baselines of the first `count` pictures; zeros where one cannot be decoded."""
    measured = {
        HISTOGRAM: np.zeros((count, _BINS**3), np.float32),
        PIXELS: np.zeros((count, _SMALL * _SMALL * 3), np.float32),
    }

    def task(row: int) -> None:
        try:
            image = image_files.decode(pictures.image_bytes(row), _SIDE, pixel_limit)
        except image_files.BadImage:
            return
        measured[HISTOGRAM][row] = colour_histogram(image_files.letterbox(image, _SIDE))
        measured[PIXELS][row] = image_files.letterbox(image, _SMALL).reshape(-1) / 255

    list(pool.map(task, range(count)))
    return measured


def colour_histogram(square: UInt8[np.ndarray, "S S 3"]) -> Float32[np.ndarray, " 512"]:
    """Square roots of the shares of pixels in 8 x 8 x 8 bins of RGB; of length 1.

    The product of two of them is the Bhattacharyya coefficient of the colours. With the roots left
    out the white ground outweighs everything else.
    """
    red, green, blue = (square[..., c].astype(np.int64) * _BINS // 256 for c in range(3))
    bins = ((red * _BINS + green) * _BINS + blue).reshape(-1)
    return np.sqrt(np.bincount(bins, minlength=_BINS**3) / len(bins)).astype(np.float32)
