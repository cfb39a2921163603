"""Eight statistics of a drawing's pixels: the space in which simulated users have a style taste.

The simulation reads these; no model input does. A model has to find the same facts in the pixels
through its image encoder.
"""

import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

NAMES = (
    "colourfulness",
    "saturation",
    "brightness",
    "edge_density",
    "share_of_black",
    "share_of_white",
    "log_colours",
    "smoothness",
)

# Grey is 0.299 R + 0.587 G + 0.114 B in whole thousandths. Many steps fall exactly on a bound: were
# they sums of floats, a processor's rounding would decide, and with it the bookmarks of the log.
_GREY = (299, 587, 114)
_FLAT, _GENTLE, _EDGE = 1_000, 12_000, 48_000  # steps between neighbours: none, gradient, outline
_BLACK, _WHITE = 40, 240
_THREADS = 8  # Pillow and NumPy release the interpreter's lock


def pixel_statistics(image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "8"]:
    """Measures one drawing.

    Args:
        image: RGB pixels, 0-255.

    Returns:
        float64 [8] in the order of NAMES: colourfulness of Hasler and Suesstrunk (2003); mean HSV
        saturation and brightness in [0, 1]; share of neighbouring pairs that differ by more than an
        outline's step; shares of black and of white pixels; natural log of the number of colours at
        five bits a channel; share of the non-flat pairs that are gentle gradients.
    """
    red, green, blue = np.moveaxis(image.astype(np.int32), -1, 0)
    rg, yb = _moments(red - green), _moments(red + green - 2 * blue)  # the second is 2 yb
    colourfulness = np.hypot(rg[1], yb[1] / 2) + 0.3 * np.hypot(rg[0], yb[0] / 2)

    # Pairs of channels: a reduction over an axis of three is many times slower.
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    saturation = ((high - low) / np.maximum(high, 1)).mean()  # 0 / 1 where black

    grey = _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue
    steps = np.concatenate(
        [np.abs(np.diff(grey, axis=0)).ravel(), np.abs(np.diff(grey, axis=1)).ravel()]
    )
    changing = np.count_nonzero(steps > _FLAT)
    gentle = np.count_nonzero((steps > _FLAT) & (steps < _GENTLE)) / max(changing, 1)
    edges = (steps > _EDGE).mean() if steps.size else 0.0

    codes = (red >> 3 << 10) | (green >> 3 << 5) | blue >> 3
    colours = np.count_nonzero(np.bincount(codes.ravel(), minlength=1))
    return np.array(
        [
            colourfulness,
            saturation,
            high.mean() / 255.0,
            edges,
            (high < _BLACK).mean(),
            (low > _WHITE).mean(),
            np.log(colours),
            gentle,
        ],
        np.float64,
    )


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of whole numbers, from sums that are exact."""
    count, total, square = values.size, int(values.sum()), int(np.square(values).sum())
    return total / count, math.sqrt(count * square - total * total) / count


def catalogue_statistics(images: Sequence[bytes]) -> Float[np.ndarray, "N 8"]:
    """Measures every drawing of a catalogue and standardises each statistic over it.

    Args:
        images: encoded pictures (any format that Pillow reads).

    Returns:
        float64 [N, 8], each column with mean 0 and standard deviation 1 (0 where constant).
    """
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        raw = np.stack(list(pool.map(_measure, images)))
    deviation = raw.std(axis=0)
    return (raw - raw.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


def _measure(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return pixel_statistics(np.asarray(picture.convert("RGB")))
