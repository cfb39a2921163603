"""Folders of sentence-transformers: what it wrote is read, and what is written is read back."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from tests.sentence_models import GOLDEN, LONGEST, SHAPES, TEXTS
from umair_jax.data.tokenizer import encode_texts, train_tokenizer
from umair_jax.interop.sentence_transformers import (
    read_sentence_transformers,
    write_sentence_transformers,
)
from umair_jax.models import weights
from umair_jax.models.initialise import HostDraws
from umair_jax.models.text_encoder import TextEncoder, TextEncoderConfig

FAMILIES = list(SHAPES)


def vectors_of(found, texts=TEXTS):
    model = TextEncoder(found.config, rngs=HostDraws(0))
    weights.fill(model, found.arrays)
    encoded = encode_texts(found.tokenizer, texts, found.max_tokens)
    return np.asarray(model(jnp.asarray(encoded.tokens), jnp.asarray(encoded.mask)))


@pytest.fixture
def folder(tmp_path):
    """A copy of a model, to be spoiled."""
    return shutil.copytree(GOLDEN / "distilbert", tmp_path / "model")


def edit(path, **changes):
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(content | changes), "utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vectors_are_those_of_the_library(family):
    found = read_sentence_transformers(GOLDEN / family)
    assert found.family == family
    assert found.max_tokens == LONGEST
    expected = np.load(GOLDEN / family / "vectors.npy")
    np.testing.assert_allclose(vectors_of(found), expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_what_was_read(family, tmp_path):
    found = read_sentence_transformers(GOLDEN / family)
    write_sentence_transformers(
        found.config, found.arrays, found.tokenizer, tmp_path / "out", max_tokens=LONGEST
    )
    again = read_sentence_transformers(tmp_path / "out")
    assert (again.family, again.max_tokens) == (family, LONGEST)
    assert again.config == found.config
    assert again.arrays.keys() == found.arrays.keys()
    for name, array in found.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    np.testing.assert_array_equal(vectors_of(again), vectors_of(found))


@pytest.mark.parametrize(
    ("shape", "family"),
    [({}, "distilbert"), ({"epsilon": 1e-6}, "bert"), ({"token_types": 2}, "bert")],
)
def test_an_encoder_of_ours_is_written(shape, family, tmp_path):
    words = train_tokenizer(TEXTS, 60)
    config = TextEncoderConfig(
        vocabulary=words.get_vocab_size(), layers=1, width=8, heads=2, ffn=16, max_positions=10,
        output=6, **shape,
    )  # fmt: skip
    model = TextEncoder(config, rngs=HostDraws(0))
    write_sentence_transformers(config, weights.flatten(model), words, tmp_path / "out")
    found = read_sentence_transformers(tmp_path / "out")
    assert found.family == family
    encoded = encode_texts(words, TEXTS, 10)
    expected = model(jnp.asarray(encoded.tokens), jnp.asarray(encoded.mask))
    np.testing.assert_allclose(vectors_of(found), expected, rtol=1e-6, atol=1e-6)


def test_lower_case_and_longest_text_are_those_of_the_older_file(folder):
    text = {"max_seq_length": 7, "do_lower_case": True}
    (folder / "sentence_bert_config.json").write_text(json.dumps(text), "utf-8")
    found = read_sentence_transformers(folder)
    assert found.max_tokens == 7
    assert found.tokenizer.encode("A RED CAT").ids == found.tokenizer.encode("a red cat").ids


def test_older_names_of_poolings_are_known(folder):
    path = folder / "1_Pooling" / "config.json"
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    path.write_text(json.dumps({"word_embedding_dimension": 16, **modes}), "utf-8")
    assert read_sentence_transformers(folder).config.pooling == "cls"
    edit(path, pooling_mode_mean_tokens=True)
    with pytest.raises(ValueError, match=r"cls \+ mean"):
        read_sentence_transformers(folder)


def test_rows_without_a_token_are_left_out(folder):
    path = folder / "model.safetensors"
    arrays = weights.read(path)
    name = "embeddings.word_embeddings.weight"
    arrays[name] = np.pad(arrays[name], ((0, 3), (0, 0)))
    weights.write(arrays, path)
    edit(folder / "config.json", vocab_size=len(arrays[name]))
    found = read_sentence_transformers(folder)
    assert found.config.vocabulary == len(arrays[name]) - 3
    assert list(found.dropped.values()) == ["no such token"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config.json", {"model_type": "t5"}, "model type 't5', expected one of bert"),
        ("config.json", {"activation": "relu"}, "activation: got 'relu'"),
        ("config.json", {"n_heads": 3}, "divisor"),
        ("config.json", {"vocab_size": 3}, "at most the 3 of the weights"),
        ("config.json", {"n_layers": 3}, r"missing: transformer\.layer\.2\.attention\.q_lin"),
        ("config.json", {"hidden_dim": 12}, r"shape of transformer\.layer\.0\.ffn\.lin1\.bias"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.GELU"}, "'GELU', expected"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "lasttoken, expected mean"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(folder, name, changes, message):
    edit(folder / name, **changes)
    with pytest.raises(ValueError, match=message):
        read_sentence_transformers(folder)


@pytest.mark.parametrize("name", ["modules.json", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: got no such file"):
        read_sentence_transformers(folder)


def test_missing_weights_are_named(folder):
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"2_Dense: got no weights, expected model\.safetensors"):
        read_sentence_transformers(folder)


def test_a_chain_of_other_modules_is_refused(folder):
    path = folder / "modules.json"
    modules = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps([*modules, {"path": "3", "type": "x.LSTM"}]), "utf-8")
    with pytest.raises(ValueError, match="got Transformer, Pooling, Dense, LSTM"):
        read_sentence_transformers(folder)


def test_what_hugging_face_cannot_compute_is_not_written(tmp_path):
    found = read_sentence_transformers(GOLDEN / "mpnet")
    shape = TextEncoderConfig(**{**vars(found.config), "token_types": 1})
    with pytest.raises(ValueError, match="only in MPNet"):
        write_sentence_transformers(shape, found.arrays, found.tokenizer, tmp_path / "out")
    shape = TextEncoderConfig(**{**vars(found.config), "position_offset": 3})
    with pytest.raises(ValueError, match="padding token 1"):
        write_sentence_transformers(shape, found.arrays, found.tokenizer, tmp_path / "out")
    with pytest.raises(ValueError, match="missing: dense/kernel"):
        write_sentence_transformers(
            TextEncoderConfig(**{**vars(found.config), "output": 5}), found.arrays,
            found.tokenizer, tmp_path / "out",
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path):
    found = read_sentence_transformers(GOLDEN / "bert")
    with pytest.raises(ValueError, match="expected a new one"):
        write_sentence_transformers(found.config, found.arrays, found.tokenizer, tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path):
    found = read_sentence_transformers(GOLDEN / "bert")
    arrays = {**found.arrays, "transformer/tokens": found.arrays["transformer/tokens"] * 1e9}
    with pytest.raises(ValueError, match="too large for float16"):
        write_sentence_transformers(
            found.config, arrays, found.tokenizer, tmp_path / "out", dtype="float16"
        )
    assert not list(tmp_path.iterdir())
