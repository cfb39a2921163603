"""The weights that come with the package: whole, small, the default, and better than none."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import base, image_tags, text_pairs
from umair_jax import pretrained, settings
from umair_jax.data import image_tags as labels_of
from umair_jax.data import images
from umair_jax.data.image_tags import ImageTagsConfig
from umair_jax.data.sources import openclipart
from umair_jax.encoding import ExtractConfig
from umair_jax.encoding import images as image_encoding
from umair_jax.encoding import texts as text_encoding
from umair_jax.extract import bank_key
from umair_jax.jobs.image_tags import ExportConfig
from umair_jax.models import weights
from umair_jax.models.augment import AugmentConfig, move, repaint
from umair_jax.models.image_encoder import ImageEncoderConfig

CARD = pretrained.IMAGE_ENCODER.with_suffix(".md")


@pytest.fixture(scope="module")
def config():
    return settings.build(ExtractConfig, base.get_config().extract)


def test_the_default_config_takes_them_and_describes_them(config):
    assert config.image_weights == pretrained.BUILTIN
    image_encoding.check_settings(config.image, config.image_weights_file)
    recorded = weights.read_settings(config.image_weights_file)
    recipe = image_tags.get_config()
    trained = settings.build(ImageEncoderConfig, recipe.model.image)
    exported = settings.build(ExportConfig, recipe.export)
    assert exported.encoder(trained) == settings.build(ImageEncoderConfig, recorded)
    assert trained.resnet == config.image.resnet


def test_they_are_at_most_six_megabytes():
    assert pretrained.IMAGE_ENCODER.stat().st_size <= 6_000_000


def test_the_card_is_about_this_file():
    digest = hashlib.sha256(pretrained.IMAGE_ENCODER.read_bytes()).hexdigest()
    assert digest in CARD.read_text("utf-8")


def test_the_name_and_the_path_mean_the_same_bank(config):
    path = dataclasses.replace(config, image_weights=str(pretrained.IMAGE_ENCODER))
    assert bank_key("f", path) == bank_key("f", config)
    assert bank_key("f", dataclasses.replace(config, image_weights="")) != bank_key("f", config)


@pytest.fixture(scope="module")
def held_out(config):
    """64 drawings that the training never saw, as pictures in [0, 1]."""
    table = openclipart.catalogue()
    rows = np.arange(1, len(table) + 1, dtype=np.int32)
    options = settings.build(ImageTagsConfig, image_tags.get_config().labels)
    test = labels_of._split(rows, options)["test"][:64]
    encoded = [table["image"][int(row) - 1].as_py() for row in test]
    squares = [images.load_square(data, config.image.image_size) for data in encoded]
    return jnp.asarray(np.stack(squares), jnp.float32) / 255


def test_they_find_held_out_drawings_in_other_paint_more_often_than_random_weights(
    config, held_out
):
    cfg = dataclasses.replace(AugmentConfig(), rotate_degrees=10.0)
    copies = repaint(jax.random.key(0), move(jax.random.key(1), held_out, cfg), cfg.repaint)
    found = {}
    for name in (pretrained.BUILTIN, ""):
        setting = dataclasses.replace(config, image_weights=name, calibration_images=64)
        table = openclipart.catalogue()
        encoder = image_encoding.build(_Catalogue(table), range(len(table)), setting)
        graph, state = nnx.split(encoder)
        encode = jax.jit(lambda state, x, graph=graph: nnx.merge(graph, state)(x).content)
        one, two = encode(state, held_out), encode(state, copies)
        one, two = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (one, two))
        found[name] = float(((two @ one.T).argmax(1) == jnp.arange(len(one))).mean())
    assert found[pretrained.BUILTIN] > found[""] + 0.2


class _Catalogue:
    def __init__(self, table):
        self._images = table["image"]

    def image_bytes(self, row):
        return self._images[row].as_py()


def test_the_text_encoder_is_whole_small_and_described():
    card = pretrained.TEXT_ENCODER.with_suffix(".md").read_text("utf-8")
    assert hashlib.sha256(pretrained.TEXT_ENCODER.read_bytes()).hexdigest() in card
    files = (pretrained.TEXT_ENCODER, pretrained.TOKENIZER)
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    recorded = weights.read_settings(pretrained.TEXT_ENCODER)
    recipe = text_pairs.get_config().model.to_dict()
    assert {**recipe, "vocabulary": recorded["vocabulary"]} == recorded


class NoTexts:
    """The vocabulary is the package's, so the catalogue is not read."""

    title = description = ()
    tags = ()


def test_a_name_is_nearest_to_its_translation():
    extract = settings.build(ExtractConfig, base.get_config().extract)
    model, words = text_encoding.build(NoTexts(), [], extract)
    texts = [
        "cat",
        "dog",
        "tree",
        "house",
        "猫",
        "犬",
        "木",
        "家",
        "chat",
        "chien",
        "arbre",
        "maison",
    ]
    found, counts = text_encoding.FrozenTextEncoder(model, words, max_tokens=32).encode(texts)
    assert counts["unknown_tokens"] == 0
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    for others in (found[4:8], found[8:]):
        assert (found[:4] @ others.T).argmax(1).tolist() == [0, 1, 2, 3]
