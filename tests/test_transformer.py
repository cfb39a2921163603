import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models import weights
from umair_jax.models.initialise import HostDraws
from umair_jax.models.text_encoder import pool_tokens
from umair_jax.models.transformer import Transformer, TransformerConfig, distance_bucket

GOLDEN = Path(__file__).parent / "golden"
SIZE = {"vocabulary": 40, "layers": 2, "width": 16, "heads": 4, "ffn": 24, "max_positions": 12}
NAMES = (
    (r"^embeddings\.word_embeddings\.weight$", "tokens"),
    (r"^embeddings\.position_embeddings\.weight$", "positions"),
    (r"^embeddings\.token_type_embeddings\.weight$", "types"),
    (r"^embeddings\.LayerNorm\.", "norm/"),
    (r"^(?:encoder|transformer)\.layer\.(\d+)\.", r"layer\1/"),
    (r"/attention\.(?:self\.query|q_lin)\.", "/query/"),
    (r"/attention\.(?:self\.key|k_lin)\.", "/key/"),
    (r"/attention\.(?:self\.value|v_lin)\.", "/value/"),
    (r"/attention\.(?:output\.dense|out_lin)\.", "/out/"),
    (r"/(?:attention\.output\.LayerNorm|sa_layer_norm)\.", "/attention_norm/"),
    (r"/(?:intermediate\.dense|ffn\.lin1)\.", "/ffn_in/"),
    (r"/(?:output\.dense|ffn\.lin2)\.", "/ffn_out/"),
    (r"/(?:output\.LayerNorm|output_layer_norm)\.", "/ffn_norm/"),
    (r"norm/weight$", "norm/scale"),
    (r"/weight$", "/kernel"),
)


def ours_of_torch(golden) -> dict[str, np.ndarray]:
    flat = {}
    for key in golden:
        if not key.startswith("w/"):
            continue
        path, value = key[2:], golden[key]
        for pattern, name in NAMES:
            path = re.sub(pattern, name, path)
        flat[path] = value.T if path.endswith("/kernel") else value
    return flat


@pytest.mark.parity
@pytest.mark.parametrize(("name", "token_types"), [("bert", 2), ("distilbert", 0)])
def test_hidden_states_and_mean_match_hugging_face(name, token_types):
    with np.load(GOLDEN / f"torch_{name}.npz", allow_pickle=False) as file:
        golden = dict(file)
    model = Transformer(TransformerConfig(**SIZE, token_types=token_types), rngs=HostDraws(0))
    weights.fill(model, ours_of_torch(golden))
    mask = golden["x_mask"].astype(bool)
    hidden = model(
        jnp.asarray(golden["x_tokens"].astype(np.int32)),
        jnp.asarray(mask),
        types=jnp.asarray(golden["x_types"].astype(np.int32)),
    )
    scale = np.abs(golden["y_hidden"]).max()
    assert np.abs(np.asarray(hidden) - golden["y_hidden"])[mask].max() / scale < 1e-5
    pooled = pool_tokens(hidden, jnp.asarray(mask))
    np.testing.assert_allclose(pooled, golden["y_pooled"], rtol=1e-5, atol=1e-5 * scale)


@pytest.fixture
def model():
    return Transformer(TransformerConfig(**SIZE), rngs=HostDraws(0))


def test_padding_and_neighbours_do_not_matter(model):
    tokens = jax.random.randint(jax.random.key(0), (2, 8), 0, 40)
    mask = jnp.arange(8) < jnp.array([[5], [8]])
    whole = model(tokens, mask)[0, :5]
    alone = model(tokens[:1, :5], mask[:1, :5])[0]
    np.testing.assert_allclose(whole, alone, rtol=1e-5, atol=1e-5)


def test_dropout_needs_a_key_and_follows_it(model):
    tokens, mask = jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)
    with pytest.raises(ValueError, match="key"):
        model(tokens, mask, train=True)
    one, two, other = (
        model(tokens, mask, train=True, key=jax.random.key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)
    np.testing.assert_array_equal(model(tokens, mask, key=jax.random.key(0)), model(tokens, mask))


def test_too_long_a_text_is_an_error(model):
    with pytest.raises(ValueError, match="length 13, expected at most max_positions = 12"):
        model(jnp.zeros((1, 13), jnp.int32), jnp.ones((1, 13), bool))


def test_bfloat16_stays_close(model):
    half = Transformer(TransformerConfig(**SIZE, dtype="bfloat16"), rngs=HostDraws(0))
    tokens, mask = jnp.arange(8)[None], jnp.ones((1, 8), bool)
    assert half(tokens, mask).dtype == jnp.bfloat16
    np.testing.assert_allclose(
        half(tokens, mask).astype(jnp.float32), model(tokens, mask), atol=0.1
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [({"heads": 5}, "divisor"), ({"layers": 0}, "layers"), ({"dropout": 1.0}, "dropout")],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TransformerConfig(**{**SIZE, **options})


def test_buckets_of_distances_are_those_of_the_paper():
    """T5's definition, spelled out: 16 buckets on either side, single up to 7, then by the log."""
    expected = []
    for distance in range(-140, 141):
        n = abs(distance)
        far = n if n < 8 else min(15, 8 + int(math.log(n / 8) / math.log(128 / 8) * 8))
        expected.append(far + 16 * (distance > 0))
    assert distance_bucket(jnp.arange(-140, 141), 32).tolist() == expected


def test_relative_positions_alone_tell_an_order():
    cfg = TransformerConfig(**SIZE, relative_buckets=8, position_std=0.0, token_types=0)
    model = Transformer(cfg, rngs=HostDraws(0))
    model.distances[...] = model.distances[...] * 50
    mask = jnp.ones((1, 3), bool)
    one, other = model(jnp.array([[5, 6, 7]]), mask), model(jnp.array([[6, 5, 7]]), mask)
    assert float(jnp.abs(one[0, 2] - other[0, 2]).max()) > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relative_buckets": 6}, "relative_buckets"),
        ({"position_offset": -1}, "position_offset"),
        ({"epsilon": 0.0}, "epsilon"),
    ],
)
def test_wrong_shapes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**options)
