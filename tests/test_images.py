import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from umair_jax.data.images import BadImage, decode, letterbox, load_square

RED, GREEN = (250, 10, 20), (10, 250, 20)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgb() -> Image.Image:
    """Left half red, right half green, twice as wide as high."""
    image = Image.new("RGB", (40, 20), RED)
    image.paste(GREEN, (20, 0, 40, 20))
    return image


def pixel(data: bytes, x: float = 0.25, y: float = 0.5) -> tuple[int, ...]:
    image = decode(data, 64)
    assert image.mode == "RGB"
    return image.getpixel((int(x * image.width), int(y * image.height)))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds hardly any pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0"))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_plain_rgb(kind):
    data = encoded(rgb(), kind)
    assert pixel(data) == RED
    assert pixel(data, 0.75) == GREEN


def test_webp_lossless():
    assert pixel(encoded(rgb(), "WEBP", lossless=True)) == RED


def test_grey_and_bilevel():
    assert pixel(encoded(Image.new("L", (8, 8), 77))) == (77, 77, 77)
    assert pixel(encoded(Image.new("1", (8, 8), 1))) == (255, 255, 255)


def test_palette():
    image = rgb().quantize(4)
    assert image.mode == "P"
    assert np.abs(np.subtract(pixel(encoded(image)), RED)).max() <= 4


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert pixel(encoded(clear)) == (255, 255, 255)
    assert pixel(encoded(half)) == pytest.approx((127, 127, 127), abs=1)
    assert pixel(encoded(Image.new("LA", (8, 8), (0, 0)))) == (255, 255, 255)


def test_transparent_palette_and_colour_key_lie_on_white():
    image = rgb().quantize(4)
    data = encoded(image, transparency=image.getpixel((0, 0)))
    assert pixel(data) == (255, 255, 255)
    assert pixel(encoded(rgb(), transparency=RED)) == (255, 255, 255)
    assert pixel(encoded(rgb(), transparency=RED), 0.75) == GREEN


def test_sixteen_bit_grey_is_scaled_not_clipped():
    image = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    assert pixel(encoded(image)) == (128, 128, 128)


def test_cmyk_jpeg():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red ink
    red, green, blue = pixel(encoded(image, "JPEG", quality=95))
    assert red > 240
    assert max(green, blue) < 20


def test_exif_rotation():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise: the left side becomes the top
    data = encoded(rgb(), "JPEG", exif=exif, quality=95)
    image = decode(data, 64)
    assert image.size == (20, 40)
    top, bottom = image.getpixel((10, 5)), image.getpixel((10, 35))
    assert top[0] > 200 > top[1]
    assert bottom[1] > 200 > bottom[0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_spoil_a_picture():
    data = encoded(rgb(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff", quality=95)
    assert pixel(data)[0] > 200


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert np.abs(np.subtract(pixel(data), RED)).max() <= 12


def test_large_jpeg_is_unpacked_smaller():
    data = encoded(Image.new("RGB", (1024, 512), RED), "JPEG")
    assert decode(data, 32).width == 128


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no image data"),
        (None, "no image data"),
        (b"not a picture at all", "unknown format"),
        (encoded(rgb())[:60], "cannot be decoded"),
        (encoded(rgb().resize((200, 200)), "JPEG")[:-200], "truncated"),
        (png_header(20_000, 20_000), "too large"),
        (png_header(8_000, 8_000), r"8000 x 8000 is 64,000,000 pixels, the limit is 50,000,000"),
    ],
    ids=["empty", "none", "text", "short png", "short jpeg", "bomb", "over the limit"],
)
def test_bad_images_have_a_reason(data, reason):
    with pytest.raises(BadImage, match=reason):
        load_square(data, 32)


def test_the_limit_is_configurable_and_checked():
    data = encoded(rgb())
    with pytest.raises(BadImage, match="the limit is 799"):
        load_square(data, 32, pixel_limit=799)
    assert load_square(data, 32, pixel_limit=800).shape == (32, 32, 3)
    with pytest.raises(ValueError, match="pixel_limit: got 0"):
        load_square(data, 32, pixel_limit=0)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (7, 7), (1000, 1)])
def test_letterbox_keeps_the_ratio_and_centres_on_white(size):
    square = letterbox(Image.new("RGB", size, RED), 32)
    assert square.shape == (32, 32, 3)
    assert square.dtype == np.uint8
    painted = (square == RED).all(-1)
    rows, columns = painted.any(1).sum(), painted.any(0).sum()
    assert max(rows, columns) == 32
    assert abs(columns / rows - size[0] / size[1]) < 0.1 or min(rows, columns) == 1
    assert (square[~painted] == 255).all()
    margins = np.flatnonzero(painted.any(1))
    assert abs(margins[0] - (31 - margins[-1])) <= 1


def test_letterbox_is_antialiased():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(letterbox(Image.fromarray(stripes), 32).astype(int) - 127).max() < 20
