import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

import umair_jax.data.builtin
from umair_jax import encoding, settings
from umair_jax.data import feature_bank
from umair_jax.data.sources import openclipart
from umair_jax.encoding import ExtractConfig
from umair_jax.encoding.images import FrozenImageEncoder, build, check_settings
from umair_jax.extract import bank_key, extract
from umair_jax.models import weights
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from umair_jax.models.initialise import HostDraws
from umair_jax.models.style import StyleConfig
from umair_jax.models.text_encoder import TextEncoderConfig
from umair_jax.probes.pictures import LabelledPictures

CONFIG = ExtractConfig(
    image=ImageEncoderConfig(base_width=2, blocks=(1, 1, 1, 1), image_size=32),
    text=TextEncoderConfig(layers=1, width=16, heads=2, ffn=16, output=8),
    image_batch=8,
    text_batch=8,
    shard_items=10,
    calibration_images=16,
)


@dataclasses.dataclass(frozen=True)
class Texts:
    title: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    description: tuple[str, ...]


class Drawings:
    """The first items of the built-in catalogue; some replaced."""

    def __init__(self, count: int = 35, images: dict[int, bytes | None] | None = None):
        path = Path(umair_jax.data.builtin.__file__).parent / "openclipart.parquet"
        rows = pq.read_table(path).slice(0, count).to_pylist()
        self.catalogue_fingerprint = f"drawings {count}"
        self.items = Texts(
            ("", *(row["title"] for row in rows)),
            ((), *(tuple(row["tags"]) for row in rows)),
            ("", *(row["description"] for row in rows)),
        )
        self._images = {i: row["image"] for i, row in enumerate(rows, start=1)} | (images or {})
        self.read: list[int] = []  # appending is safe from several threads
        self.fail_at: int | None = None  # a row, once so many have been read
        self.fail_after = 0

    @property
    def reads(self) -> int:
        return len(self.read)

    def image_bytes(self, row: int) -> bytes | None:
        if row == self.fail_at and self.reads >= self.fail_after:
            raise RuntimeError("power cut")
        self.read.append(row)
        return self._images[row]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed bank: (folder, bank, printed)."""
    folder = tmp_path_factory.mktemp("finished")
    console = quiet()
    bank = extract(Drawings(), CONFIG, folder, console=console)
    return folder, bank, console.file.getvalue()


def test_bank_holds_every_item(finished):
    _, bank, printed = finished
    assert bank.content.shape == (36, 64)
    assert bank.style.shape == (36, 8)
    assert bank.text.shape == (36, 8)
    assert not bank.content[0].any()
    assert not bank.has_image[0]
    assert bank.has_image[1:].all()
    assert bank.has_text[1:].all()
    assert np.isfinite(bank.content).all()
    assert (bank.content[1:].std(0) > 0).all()
    assert "Untrained image encoder" in printed
    assert "35 items" in printed


def test_manifest_tells_what_made_it(finished):
    folder, bank, _ = finished
    manifest = bank.manifest
    assert manifest["sizes"] == {"content": 64, "style": 8, "text": 8}
    assert manifest["dtype"] == "float32"
    assert manifest["trained"] is False
    assert (manifest["items"], manifest["usable_images"], manifest["texts"]) == (35, 35, 35)
    assert (manifest["bad_images"], manifest["calibration_images"]) == (0, 16)
    assert manifest["dataset"] == "drawings 35"
    assert len(manifest["encoder"]) > 30
    assert feature_bank.read_manifest(folder) == manifest


def test_finished_bank_is_left_alone(finished):
    folder, bank, _ = finished
    drawings = Drawings()
    again = extract(drawings, CONFIG, folder, console=quiet())
    np.testing.assert_array_equal(again.content, bank.content)
    elsewhere = dataclasses.replace(CONFIG, decode_threads=3, decode_workers=2)
    extract(drawings, elsewhere, folder, console=quiet())
    assert not drawings.read


def test_vectors_do_not_depend_on_neighbours(finished):
    folder, bank, _ = finished
    encoders = encoding.load(folder, CONFIG)
    from umair_jax.data.images import load_square

    batch = np.full((8, 32, 32, 3), 255, np.uint8)
    batch[5] = load_square(Drawings().image_bytes(20), 32)
    content, style = encoders.start_images(batch)
    np.testing.assert_allclose(content[5], bank.content[20], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(style[5], bank.style[20], rtol=1e-4, atol=1e-5)
    text = encoding.item_text(Drawings().items, 20, CONFIG)
    np.testing.assert_allclose(
        encoders.encode_texts([text])[0][0], bank.text[20], rtol=1e-4, atol=1e-5
    )


def test_interrupted_run_ends_in_the_identical_bank(finished, tmp_path):
    folder, _, _ = finished
    drawings = Drawings()
    # After the calibration sample, in the middle of the third shard; the second one's last
    # batch is still on the device then.
    drawings.fail_at, drawings.fail_after = 25, 16
    with pytest.raises(RuntimeError, match="power cut"):
        extract(drawings, CONFIG, tmp_path, console=quiet())
    assert feature_bank.read_manifest(tmp_path) is None
    assert len(list(tmp_path.glob("shard-*"))) == 1
    drawings.fail_at, drawings.read = None, []
    extract(drawings, CONFIG, tmp_path, console=quiet())
    assert sorted(drawings.read) == list(range(11, 36))
    assert contents(tmp_path) == contents(folder)


def test_broken_shard_of_a_finished_bank_is_repaired(finished, tmp_path):
    folder, bank, _ = finished
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = feature_bank.shard_path(tmp_path, 2)
    damaged.write_bytes(damaged.read_bytes()[:100])
    drawings = Drawings()
    again = extract(drawings, CONFIG, tmp_path, console=quiet())
    assert drawings.reads == 10
    np.testing.assert_array_equal(again.content, bank.content)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_extract import CONFIG, Drawings, extract, quiet

class Slow(Drawings):
    def image_bytes(self, row):
        time.sleep(0.03)
        return super().image_bytes(row)

extract(Slow(), CONFIG, sys.argv[2], console=quiet())
"""


@pytest.mark.slow
def test_killed_process_is_taken_up_again(finished, tmp_path, compiled_once):
    folder, _, _ = finished
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    process = subprocess.Popen(command, env=os.environ | compiled_once)
    waited = time.monotonic()
    while not feature_bank.shard_path(tmp_path, 0).exists():
        assert process.poll() is None
        assert time.monotonic() - waited < 120
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert feature_bank.read_manifest(tmp_path) is None
    drawings = Drawings()
    extract(drawings, CONFIG, tmp_path, console=quiet())
    assert drawings.reads < 35
    assert contents(tmp_path) == contents(folder)


def test_another_configuration_or_catalogue_replaces_the_bank(tmp_path):
    first = extract(Drawings(12), CONFIG, tmp_path, console=quiet())
    other = dataclasses.replace(CONFIG, seed=1)
    second = extract(Drawings(12), other, tmp_path, console=quiet())
    assert not np.allclose(first.content, second.content)
    assert first.manifest["encoder"] != second.manifest["encoder"]
    third = extract(Drawings(9), other, tmp_path, console=quiet())
    assert third.items == 9
    assert len(list(tmp_path.glob("shard-*"))) == 1


def test_broken_and_missing_images_and_texts_are_counted(tmp_path):
    drawings = Drawings(12, {3: b"garbage", 5: None, 7: b""})
    tags = tuple(() if i == 4 else tags for i, tags in enumerate(drawings.items.tags))
    title = tuple(" " if i == 4 else title for i, title in enumerate(drawings.items.title))
    drawings.items = dataclasses.replace(drawings.items, tags=tags, title=title)
    console = quiet()
    bank = extract(drawings, CONFIG, tmp_path, console=console)
    assert np.flatnonzero(~bank.has_image).tolist() == [0, 3, 5, 7]
    assert np.flatnonzero(~bank.has_text).tolist() == [0, 4]
    assert not bank.content[[3, 5, 7]].any()
    assert not bank.style[[3, 5, 7]].any()
    assert not bank.text[4].any()
    manifest = bank.manifest
    assert (manifest["bad_images"], manifest["missing_images"], manifest["texts"]) == (1, 2, 11)
    assert manifest["bad_image_list"][0]["row"] == 3
    assert "unknown format" in manifest["bad_image_list"][0]["reason"]
    assert "row 3: not an image" in console.file.getvalue()


def test_too_many_broken_images_stop_the_run(tmp_path):
    drawings = Drawings(10, dict.fromkeys(range(1, 5), b"garbage"))
    with pytest.raises(ValueError, match=r"got 4 of 10 that cannot be .*row 1: not an image"):
        extract(drawings, CONFIG, tmp_path, console=quiet())
    tolerant = dataclasses.replace(CONFIG, max_bad_share=0.5)
    drawings.read = []
    extract(drawings, tolerant, tmp_path, console=quiet())
    assert drawings.reads == 0


def test_no_usable_image_at_all(tmp_path):
    bank = extract(Drawings(4, dict.fromkeys(range(1, 5))), CONFIG, tmp_path, console=quiet())
    assert not bank.has_image.any()
    assert not bank.content.any()
    assert bank.has_text[1:].all()


def test_pixel_limit_reaches_the_decoder(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (300, 300)).save(file, "PNG")
    small = dataclasses.replace(CONFIG, pixel_limit=80_000)
    bank = extract(Drawings(9, {2: file.getvalue()}), small, tmp_path, console=quiet())
    assert "too large: 300 x 300" in bank.manifest["bad_image_list"][0]["reason"]


def test_trained_weights_are_used_and_not_calibrated(finished, tmp_path):
    folder, bank, _ = finished
    trained = dataclasses.replace(
        CONFIG,
        image_weights=str(folder / "image_encoder.safetensors"),
        text_weights=str(folder),
        seed=5,
    )
    console = quiet()
    again = extract(Drawings(), trained, tmp_path, console=console)
    assert again.trained
    assert "Untrained" not in console.file.getvalue()
    np.testing.assert_array_equal(again.content, bank.content)
    np.testing.assert_array_equal(again.text, bank.text)


def test_weights_of_another_shape_are_refused_with_all_problems(finished, tmp_path):
    folder, _, _ = finished
    wide = dataclasses.replace(
        CONFIG,
        image=dataclasses.replace(CONFIG.image, base_width=4),
        image_weights=str(folder / "image_encoder.safetensors"),
    )
    with pytest.raises(ValueError, match=r"shape of backbone/bn1/scale: got \(2,\), expected"):
        extract(Drawings(9), wide, tmp_path, console=quiet())
    with pytest.raises(ValueError, match="cannot be read"):
        weights.load(encoding.load(folder, CONFIG).image, tmp_path / "nothing.safetensors")


def test_calibration_repeats_good_pictures_in_place_of_bad_ones():
    encoders = []
    for squares, usable in (((0, 1, 0, 1), (1, 1, 1, 1)), ((0, 1, 9, 9), (1, 1, 0, 0))):
        encoder = ImageEncoder(CONFIG.image, rngs=HostDraws(0))
        images = np.stack(
            [np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8) for i in squares]
        )
        batch = encoding.Decoded(images, np.array(usable, bool), (), 0)
        assert encoding.calibrate(encoder, [batch]) == sum(usable)
        encoders.append(weights.flatten(encoder))
    for name, array in encoders[0].items():
        np.testing.assert_allclose(array, encoders[1][name], rtol=1e-4, atol=1e-5)


def test_key_follows_content_not_paths(finished, tmp_path):
    folder, _, _ = finished
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes((folder / "image_encoder.safetensors").read_bytes())
    one, two = (
        bank_key("f", dataclasses.replace(CONFIG, image_weights=str(path)))
        for path in (folder / "image_encoder.safetensors", copy)
    )
    assert one == two != bank_key("f", CONFIG)
    assert bank_key("g", CONFIG) != bank_key("f", CONFIG)


def test_devices_share_a_batch(finished):
    folder, _, _ = finished
    encoders = encoding.load(folder, CONFIG)
    content, _ = encoders.start_images(np.zeros((8, 32, 32, 3), np.uint8))
    assert len(content.sharding.device_set) == min(8, jax.local_device_count())


def test_config_section_becomes_the_dataclass():
    section = {"image": {"base_width": 8}, "text_fields": ["title"]}
    config = settings.build(ExtractConfig, section)
    assert config.image.base_width == 8
    assert config.text_fields == ("title",)
    with pytest.raises(ValueError, match="base_width"):
        settings.build(ExtractConfig, {"image": {"base_widht": 8}})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text_fields": ("tag",)}, "text_fields"),
        ({"text_fields": ()}, "text_fields"),
        ({"image_batch": 0}, "image_batch"),
        ({"max_tokens": 600}, "max_positions, 512"),
        ({"store_dtype": "int8"}, "int8"),
        ({"max_bad_share": 2.0}, "max_bad_share"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ExtractConfig(**options)


def test_weights_for_another_encoder_of_the_same_shapes_are_refused(tmp_path):
    image = ImageEncoderConfig(base_width=4, blocks=(1, 1, 1, 1), image_size=32)
    path = tmp_path / "encoder.safetensors"
    recorded = json.dumps(dataclasses.asdict(image))
    weights.save(ImageEncoder(image, rngs=HostDraws(0)), path, metadata={"config": recorded})
    larger = dataclasses.replace(image, image_size=64, dtype="bfloat16")
    check_settings(larger, path)
    other = dataclasses.replace(image, pre_activation=False, padding="same")
    with pytest.raises(ValueError, match=r"pre_activation: got False, expected True; set") as error:
        check_settings(other, path)
    assert "padding: got same, expected symmetric" in str(error.value)


def test_other_heads_than_those_of_the_weights_are_fitted_to_the_catalogue(tmp_path):
    table = openclipart.catalogue()["image"].to_pylist()[:40]
    pictures = LabelledPictures("artists", table, [""] * 40, {}, {}, {})
    image = ImageEncoderConfig(base_width=4, blocks=(1, 1), content_stage=2, image_size=32)
    path = tmp_path / "encoder.safetensors"
    recorded = json.dumps(dataclasses.asdict(image))
    trained = ImageEncoder(image, rngs=HostDraws(7))
    trained.backbone.bn1.mean[...] += 0.1
    weights.save(trained, path, metadata={"config": recorded})
    style = StyleConfig(stages=(0,), kernel="gaussian", frequencies=32)
    wanted = dataclasses.replace(image, style=style, whiten_content=8, whiten_style=6)
    config = ExtractConfig(image=wanted, image_weights=str(path), image_batch=8)
    encoder = build(pictures, range(40), config)
    for name, array in weights.flatten(trained.backbone).items():
        np.testing.assert_array_equal(weights.flatten(encoder.backbone)[name], array)
    rows = [range(start, start + 8) for start in range(0, 40, 8)]
    vectors = list(FrozenImageEncoder(config, encoder).encode(pictures, rows))
    vectors = np.concatenate([batch.style for batch in vectors])
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.corrcoef(vectors.T), np.eye(6), atol=1e-2)
    for changes in (
        {"calibration_images": 0},
        {"image": dataclasses.replace(wanted, style=StyleConfig(projection=4), whiten_style=0)},
    ):
        with pytest.raises(ValueError, match="for another style head"):
            build(pictures, range(40), dataclasses.replace(config, **changes))
