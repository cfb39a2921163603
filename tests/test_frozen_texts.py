"""Vectors of many texts: packed into few calls, each as if it were alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.sentence_models import GOLDEN
from umair_jax.data.tokenizer import encode_texts
from umair_jax.encoding import FrozenTextEncoder, text_model
from umair_jax.encoding.frozen import mesh_for
from umair_jax.training.sharding import MeshConfig, make_mesh

WORDS = ["the", "cat", "sat", "on", "a", "red", "mat", "and", "dog", "again"]


def mixture(count, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.choice([0, 1, 1, 2, 3, 9], count)
    return [" ".join(rng.choice(WORDS, length)) for length in lengths]


@pytest.fixture(scope="module", params=["distilbert", "mpnet", "xlm-roberta"])
def model(request):
    return text_model.read(GOLDEN / request.param)


def alone(model, texts):
    encoded = encode_texts(model.words, texts, model.max_tokens)
    encoder = model.encoder()
    inputs = jnp.asarray(encoded.tokens), jnp.asarray(encoded.mask)
    return np.asarray(jax.jit(lambda tokens, mask: encoder(tokens, mask))(*inputs))


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_text_has_the_vector_that_it_has_alone(model, rows):
    texts = mixture(60)
    frozen = FrozenTextEncoder(model.encoder(), model.words, max_tokens=12, rows=rows)
    found, counts = frozen.encode(texts)
    np.testing.assert_allclose(found, alone(model, texts), rtol=1e-4, atol=2e-5)
    assert counts == {"unknown_tokens": 0, "truncated_texts": 0}
    shuffled = np.random.default_rng(1).permutation(len(texts))
    again, _ = frozen.encode([texts[i] for i in shuffled])
    np.testing.assert_allclose(again, found[shuffled], rtol=1e-4, atol=2e-5)


def test_devices_share_the_rows():
    model = text_model.read(GOLDEN / "distilbert")
    texts = mixture(60)
    found = []
    for devices in (1, 8):
        mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
        frozen = FrozenTextEncoder(model.encoder(), model.words, max_tokens=12, rows=8, mesh=mesh)
        found.append(frozen.encode(texts)[0])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_texts_without_a_token_have_the_vector_of_none():
    model = text_model.read(GOLDEN / "distilbert")
    bare = model.words.from_str(model.words.to_str())
    bare.post_processor = None  # no marks around a text
    frozen = FrozenTextEncoder(model.encoder(), bare, max_tokens=12, rows=4)
    none = np.asarray(jnp.tanh(model.arrays["dense/bias"]))
    found, _ = frozen.encode(["", "cat", ""])
    np.testing.assert_allclose(found[[0, 2]], [none, none], atol=1e-6)
    assert np.abs(found[1] - none).max() > 0.01
    np.testing.assert_allclose(frozen.encode([""])[0], [none], atol=1e-6)
    assert frozen.encode([])[0].shape == (0, len(none))


def test_few_programs_serve_any_number_of_texts():
    model = text_model.read(GOLDEN / "distilbert")
    mesh = mesh_for(1)
    frozen = FrozenTextEncoder(model.encoder(), model.words, max_tokens=12, rows=8, mesh=mesh)
    shapes = set()
    call = frozen._call
    frozen._call = lambda tokens, *rest: (shapes.add(tokens.shape), call(tokens, *rest))[1]
    for count in (1, 5, 20, 60, 200):
        frozen.encode(mixture(count))
    assert shapes <= {(rows, 12) for rows in (1, 2, 4, 8)}
