"""The front door for text encoders: there and back, and what it prints."""

import io

import numpy as np
import pytest
from rich.console import Console

from configs import base
from tests.sentence_models import GOLDEN
from umair_jax import settings
from umair_jax.convert_text import convert_text
from umair_jax.encoding import ExtractConfig, text_model, texts


class NoTexts:
    """The vocabulary comes with the weights, so the catalogue is not read."""

    title = description = tags = ()


def run(source, target, **options):
    said = io.StringIO()
    found = convert_text(source, target, console=Console(file=said, width=90), **options)
    return found, said.getvalue()


def test_the_printed_lines_are_lines_of_a_config(tmp_path):
    _, said = run(GOLDEN / "mpnet", tmp_path / "mpnet")
    for words in ("sentence-transformers, mpnet", "max over the tokens", "texts of up to 12"):
        assert words in said
    lines = [line.strip() for line in said.splitlines() if line.startswith("    config.")]
    config = base.get_config()
    exec("\n".join(lines), {"config": config})
    extract = settings.build(ExtractConfig, config.extract)
    encoder, _ = texts.build(NoTexts(), [], extract)
    found, _ = texts.FrozenTextEncoder(
        encoder, text_model.read(tmp_path / "mpnet").words, max_tokens=extract.max_tokens
    ).encode(["a red cat", "cat"])
    np.testing.assert_allclose(found, np.load(GOLDEN / "mpnet" / "vectors.npy")[:2], atol=1e-5)


@pytest.mark.parametrize("source", ["builtin", str(GOLDEN / "xlm-roberta")])
def test_there_and_back(source, tmp_path):
    given, said = run(source, tmp_path / "theirs", to="sentence-transformers")
    assert f"SentenceTransformer('{tmp_path / 'theirs'}')" in said
    found, said = run(tmp_path / "theirs", tmp_path / "ours")
    assert f"--config=configs/text_pairs.py:{tmp_path / 'ours'}" in said
    assert (found.config, found.max_tokens) == (given.config, given.max_tokens)
    again = text_model.read(tmp_path / "ours")
    for name, array in given.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)


def test_weights_are_stored_as_asked_and_nothing_is_left_of_a_failure(tmp_path):
    run("builtin", tmp_path / "half", dtype="bfloat16")
    arrays = text_model.read(tmp_path / "half").arrays
    assert {array.dtype.name for array in arrays.values()} == {"bfloat16"}
    for to in ("umair", "sentence-transformers"):
        with pytest.raises(ValueError, match="dtype: got 'int8'"):
            run("builtin", tmp_path / "wrong", dtype="int8", to=to)
    assert [path.name for path in tmp_path.iterdir()] == ["half"]
