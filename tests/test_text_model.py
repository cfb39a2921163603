"""A text encoder and its tokenizer as one folder."""

import dataclasses
import shutil

import numpy as np
import pytest

from tests.sentence_models import GOLDEN, LONGEST
from umair_jax import pretrained
from umair_jax.encoding import text_model
from umair_jax.interop.sentence_transformers import read_sentence_transformers
from umair_jax.models import weights


@pytest.fixture
def folder(tmp_path):
    """A small model of ours, to be spoiled."""
    (tmp_path / "model").mkdir()
    text_model.write(text_model.read(GOLDEN / "distilbert"), tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_of_sentence_transformers_is_read_as_it_is():
    found, theirs = text_model.read(GOLDEN / "mpnet"), read_sentence_transformers(GOLDEN / "mpnet")
    assert (found.config, found.max_tokens) == (theirs.config, LONGEST)
    assert found.arrays.keys() == theirs.arrays.keys()


def test_what_is_written_is_read_back(folder):
    given, found = text_model.read(GOLDEN / "distilbert"), text_model.read(folder)
    assert (found.config, found.max_tokens) == (given.config, LONGEST)
    assert found.words.to_str() == given.words.to_str()
    for name, array in weights.flatten(found.encoder()).items():
        np.testing.assert_array_equal(array, given.arrays[name])


def test_settings_that_change_the_vectors_are_not_overridden(folder):
    found = text_model.read(folder)
    free = dataclasses.replace(found.config, vocabulary=7, dropout=0.5, dtype="bfloat16")
    assert found.encoder(free).cfg == dataclasses.replace(free, vocabulary=found.config.vocabulary)
    other = dataclasses.replace(found.config, pooling="max", normalise=True)
    expected = "here: got pooling='max', normalise=True; expected pooling='mean', normalise=False"
    with pytest.raises(ValueError, match=expected):
        found.encoder(other, "here")


def test_the_digest_is_that_of_the_contents(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "summary.json").write_text("{}", "utf-8")  # of the training, say
    assert text_model.digest(copy) == text_model.digest(folder)
    words = copy / text_model.TOKENIZER
    words.write_text(words.read_text("utf-8").replace("red", "tan"), "utf-8")
    assert text_model.digest(copy) != text_model.digest(folder)
    theirs = shutil.copytree(GOLDEN / "distilbert", tmp_path / "theirs")
    assert text_model.digest(theirs) == text_model.digest(GOLDEN / "distilbert")
    (theirs / "2_Dense" / "model.safetensors").write_bytes(b"")
    assert text_model.digest(theirs) != text_model.digest(GOLDEN / "distilbert")
    assert text_model.digest("builtin") == text_model.digest(pretrained.TEXT_ENCODER.parent)


def test_what_is_no_text_model_is_refused(folder, tmp_path):
    for read in (text_model.read, text_model.digest):
        with pytest.raises(ValueError, match="text model: "):
            read(tmp_path)
    words = folder / text_model.TOKENIZER
    kept = words.read_text("utf-8")
    shutil.copy(pretrained.TOKENIZER, words)
    with pytest.raises(ValueError, match="got 12,000 tokens, expected the "):
        text_model.read(folder)
    words.write_text(kept, "utf-8")
    path = folder / text_model.WEIGHTS
    weights.write(weights.read(path), path)
    with pytest.raises(ValueError, match="do not say what shape"):
        text_model.read(folder)
