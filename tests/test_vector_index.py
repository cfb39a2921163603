import importlib.util

import numpy as np
import pytest

from umair_jax.interop import vector_index


def vectors():
    rng = np.random.default_rng(0)
    return np.concatenate([np.zeros((1, 8)), rng.normal(size=(40, 8))]).astype(np.float32)


def search(kind, path, query, k):
    if kind == "usearch":
        from usearch.index import Index

        return Index.restore(str(path)).search(query, k).keys
    import faiss

    return faiss.read_index(str(path)).search(query[None], k)[1][0]


@pytest.mark.parametrize("kind", list(vector_index.KINDS))
def test_an_index_finds_rows_by_inner_product(kind, tmp_path):
    pytest.importorskip(vector_index.KINDS[kind][0])
    items = vectors()
    path = vector_index.write(kind, items, tmp_path)
    query = 10 * items[7]
    expected = np.argsort(-(items @ query))[:5]
    np.testing.assert_array_equal(search(kind, path, query, 5), expected)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'got faiss, whose package.*"\.\[index\]"'):
        vector_index.write("faiss", vectors(), tmp_path)
    with pytest.raises(ValueError, match="expected one of usearch, faiss"):
        vector_index.require("annoy")
