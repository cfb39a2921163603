"""Encoded pictures of any kind to square RGB arrays; broken ones get a reason, not a crash."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps

PIXEL_LIMIT = 50_000_000
LARGEST_IMAGE_BYTES = 256 * 2**20
LARGEST_PIXEL_LIMIT = 178_956_970  # Pillow itself refuses anything larger.
WHITE = (255, 255, 255)
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations


class BadImage(ValueError):  # noqa: N818 - it names the image, not a fault of the program
    """An image that cannot be used; the message is the reason."""


def decode(data: bytes | None, size: int, pixel_limit: int = PIXEL_LIMIT) -> Image.Image:
    """Decodes an image to upright RGB on white.

    Understands what Pillow does: PNG (grey, palette, transparent, 16 bit), JPEG (also CMYK), WebP,
    GIF and other animations (their first frame), TIFF, BMP. EXIF orientation is applied.
    The size is checked from the header, before any pixel is unpacked.

    Args:
        data: The encoded file.
        size: The resolution that will be asked for later. Large JPEGs are unpacked at a
            half, a quarter or an eighth where that still leaves twice this size.
        pixel_limit: Largest width x height, against decompression bombs.

    Raises:
        BadImage: Empty, unknown format, too large, truncated or corrupt.
        ValueError: `pixel_limit` outside 1 to 178,956,970.
    """
    if not 1 <= pixel_limit <= LARGEST_PIXEL_LIMIT:
        raise ValueError(
            f"pixel_limit: got {pixel_limit}, expected 1 to {LARGEST_PIXEL_LIMIT} pixels."
        )
    if not data:
        raise BadImage("no image data")
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = image.width * image.height
            if pixels > pixel_limit:
                raise BadImage(
                    f"too large: {image.width} x {image.height} is {pixels:,} pixels, "
                    f"the limit is {pixel_limit:,}"
                )
            image.draft(None, (2 * size, 2 * size))
            image.load()
            return _on_white(_upright(image))
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise BadImage("not an image: unknown format or broken header") from error
    except Exception as error:
        # Decoders raise whatever their format's parser meets: struct.error, SyntaxError, zlib's.
        raise BadImage(f"cannot be decoded: {type(error).__name__}: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    # Broken EXIF data do not spoil a picture: it stays as it is stored.
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as the picture is shown, from its header: no pixel is unpacked."""
    # Pillow would unpack a PNG, in search of EXIF data behind the pixels.
    if image.format != "PNG" or "exif" in image.info:
        with contextlib.suppress(Exception):
            if image.getexif().get(ExifTags.Base.Orientation, 1) in _ON_ITS_SIDE:
                return image.height, image.width
    return image.size


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which convert("RGB") would clip to white
        grey = np.asarray(image, np.float32) / 257
        image = Image.fromarray(np.clip(np.round(grey), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (*WHITE, 255))
        return Image.alpha_composite(canvas, image).convert("RGB")
    return image.convert("RGB")


def letterbox(image: Image.Image, size: int) -> UInt8[np.ndarray, "S S 3"]:
    """Fits an RGB image into a white square, aspect ratio kept, centred.

    Bilinear with antialiasing, up or down. (The authors' code squeezes to a square by
    tf.image.resize without antialiasing.)
    """
    scale = size / max(image.width, image.height)
    width = min(size, max(1, round(image.width * scale)))
    height = min(size, max(1, round(image.height * scale)))
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    square = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = np.asarray(image)
    return square


def load_square(
    data: bytes | None, size: int, pixel_limit: int = PIXEL_LIMIT
) -> UInt8[np.ndarray, "S S 3"]:
    """Encoded bytes to a letter-boxed RGB square of `size` pixels; divide by 255 for [0, 1].

    Raises:
        BadImage: As in `decode`.
    """
    return letterbox(decode(data, size, pixel_limit), size)


def thumbnail(
    data: bytes | None, size: int, quality: int = 72, pixel_limit: int = PIXEL_LIMIT
) -> bytes:
    """Encoded bytes to a letter-boxed square as WebP, for pages.

    Args:
        data: The encoded file.
        size: Pixels along both sides, at most: a smaller picture is not enlarged.
        quality: Of the encoding, 0 to 100.
        pixel_limit: As in `decode`.

    Raises:
        BadImage: As in `decode`.
    """
    image = decode(data, size, pixel_limit)
    encoded = io.BytesIO()
    square = letterbox(image, min(size, max(image.size)))
    Image.fromarray(square).save(encoded, "WEBP", quality=quality, method=4)
    return encoded.getvalue()
