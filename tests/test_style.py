from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models.style import gram_style

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parity
@pytest.mark.parametrize("name", ["style_gram_head", "style_gram_head_256"])
def test_style_and_its_gradients_match_the_published_head(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as golden:
        blocks = [jnp.asarray(golden[key]) for key in ("add", "add_1", "add_2")]
        y, back = jax.vjp(lambda *maps: gram_style(maps), *blocks)
        np.testing.assert_allclose(y, golden["y"], rtol=1e-5, atol=1e-6)
        for key, gradient in zip(
            ("add", "add_1", "add_2"), back(jnp.asarray(golden["ct"])), strict=True
        ):
            np.testing.assert_allclose(gradient, golden[f"g/{key}"], rtol=1e-4, atol=1e-6)


def test_bfloat16_maps_are_multiplied_in_float32():
    maps = jax.random.normal(jax.random.key(0), (2, 5, 5, 8)).astype(jnp.bfloat16)
    np.testing.assert_allclose(
        gram_style([maps]), gram_style([maps.astype(jnp.float32)]), rtol=1e-6
    )


def test_style_ignores_where_things_are():
    maps = jax.random.normal(jax.random.key(1), (2, 4, 6, 8))
    moved = jnp.roll(maps[:, ::-1], 3, axis=2)
    np.testing.assert_allclose(gram_style([moved]), gram_style([maps]), rtol=1e-5, atol=1e-6)


def test_nothing_to_look_at_is_an_error():
    with pytest.raises(ValueError, match="at least one block"):
        gram_style([])
