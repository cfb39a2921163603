"""Eight statistics of a drawing's pixels: the space in which simulated users have a style taste.

The simulation reads these; no model input does. A model has to find the same facts in the pixels
through its image encoder.
"""

import io
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

_EDGE = 48.0  # grey levels between neighbouring pixels that count as an outline
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
    rgb = image.astype(np.float32)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    rg, yb = red - green, 0.5 * (red + green) - blue
    colourfulness = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())

    # Pairs of channels: a reduction over an axis of three is many times slower.
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    saturation = np.where(high > 0, (high - low) / np.maximum(high, 1.0), 0.0).mean()

    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    steps = np.concatenate(
        [np.abs(np.diff(grey, axis=0)).ravel(), np.abs(np.diff(grey, axis=1)).ravel()]
    )
    changing = steps > 1.0
    gentle = (changing & (steps < 12.0)).sum() / max(int(changing.sum()), 1)
    edges = (steps > _EDGE).mean() if steps.size else 0.0

    codes = image.astype(np.int32) >> 3
    codes = (codes[..., 0] << 10) | (codes[..., 1] << 5) | codes[..., 2]
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
