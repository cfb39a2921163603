import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models import top_k as searching
from umair_jax.models.top_k import TopKConfig
from umair_jax.training.sharding import MeshConfig, make_mesh, place_context


def vectors(queries, items, width=5, seed=0, values=3):
    """Small whole numbers: products are exact, and many are equal."""
    rng = np.random.default_rng(seed)
    shape = (queries + items, width)
    both = rng.integers(-values, values + 1, shape).astype(np.float32)
    return both[:queries], both[queries:]


def top_k(*arrays, **options):
    given = {k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    query, items, k = arrays
    return searching.top_k(jnp.asarray(query), jnp.asarray(items), k, **given)


def obvious(query, items, k, allowed=None, excluded=None):
    score = query @ items.T
    if allowed is not None:
        score = np.where(allowed, score, -np.inf)
    for q, rows in enumerate(excluded if excluded is not None else ()):
        score[q, rows[rows >= 0]] = -np.inf
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(score, order, 1)
    return best, np.where(best == -np.inf, -1, order)


@pytest.mark.parametrize(
    ("items", "k", "block"),
    [(1, 1, 8), (37, 5, 8), (40, 5, 8), (37, 37, 8), (37, 3, 100)],
)
def test_it_is_the_order_of_all_scores(items, k, block):
    query, catalogue = vectors(6, items)
    allowed = np.random.default_rng(1).random(items) < 0.8
    excluded = np.random.default_rng(2).integers(-1, items, (6, 3)).astype(np.int32)
    found = top_k(
        query, catalogue, k, allowed=allowed, excluded=excluded, config=TopKConfig(block=block)
    )
    for mine, expected in zip(found, obvious(query, catalogue, k, allowed, excluded), strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize(("devices", "model"), [(1, 1), (2, 1), (4, 2), (8, 1)])
def test_any_number_of_devices_finds_the_same(devices, model):
    query, catalogue = vectors(3, 29)
    excluded = np.random.default_rng(2).integers(-1, 29, (3, 4)).astype(np.int32)
    mesh = make_mesh(MeshConfig(model=model), jax.devices()[:devices])
    rules = ((r"", (("data", "model"),)),)
    given = {"items": catalogue, "allowed": np.arange(29) % 7 > 0}
    placed = place_context(given, mesh, rules)  # padded with rows that are not allowed
    search = jax.jit(
        lambda query, items, allowed, excluded: top_k(
            query,
            items,
            11,
            allowed=allowed,
            excluded=excluded,
            config=TopKConfig(block=3),
            mesh=mesh,
        )
    )
    found = search(query, placed["items"], placed["allowed"], excluded)
    expected = obvious(query, catalogue, 11, given["allowed"], excluded)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


def test_the_approximate_search_finds_most():
    rng = np.random.default_rng(0)
    query, catalogue = rng.normal(size=(8, 16)), rng.normal(size=(999, 16))
    query, catalogue = query.astype(np.float32), catalogue.astype(np.float32)
    config = TopKConfig(block=250, approximate=True, recall_target=0.9)
    score, row = top_k(query, catalogue, 20, config=config)
    _, exact = obvious(query, catalogue, 20)
    shared = [
        len(set(a) & set(b)) for a, b in zip(np.asarray(row).tolist(), exact.tolist(), strict=True)
    ]
    assert np.mean(shared) / 20 >= 0.9
    assert (np.diff(score, axis=1) <= 0).all()
    np.testing.assert_allclose(
        score, np.take_along_axis(query @ catalogue.T, np.asarray(row), 1), rtol=1e-5
    )


def test_masks_may_be_left_out():
    query, catalogue = vectors(6, 37)
    for mine, expected in zip(
        top_k(query, catalogue, 5), obvious(query, catalogue, 5), strict=True
    ):
        np.testing.assert_array_equal(mine, expected)


def test_no_array_of_all_scores_is_made():
    query, catalogue = (jax.ShapeDtypeStruct((n, 4), jnp.float32) for n in (64, 4096))
    search = jax.jit(lambda q, n: searching.top_k(q, n, 5, config=TopKConfig(block=128)))
    text = search.lower(query, catalogue).as_text()
    assert "tensor<64x128xf32>" in text
    assert "64x4096" not in text


def test_what_cannot_be_searched_is_refused():
    query, catalogue = vectors(2, 9)
    for k in (0, 10):
        with pytest.raises(ValueError, match=f"got k {k}, expected 1 to 9"):
            top_k(query, catalogue, k)
    mesh = make_mesh(MeshConfig(), jax.devices()[:2])
    with pytest.raises(ValueError, match="got 9 items for 2 devices, expected a multiple"):
        top_k(query, catalogue, 3, mesh=mesh)
    with pytest.raises(ValueError, match="block of 1 or more"):
        TopKConfig(block=0)
