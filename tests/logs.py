"""Random logs for tests: many ties in time, users without bookmarks, repeated pairs."""

import numpy as np

from umair_jax.data.dataset import Dataset, Interactions, Items, Users


def random_log(seed, rows=300, users=12, items=25, seconds=80, start=1_000_000):
    rng = np.random.default_rng(seed)
    return Interactions(
        user=rng.integers(1, users + 1, rows).astype(np.int32),
        item=rng.integers(1, items + 1, rows).astype(np.int32),
        timestamp=start + rng.integers(0, seconds, rows),
        label=(rng.random(rows) < 0.4).astype(np.int8),
    ).ordered()


def dataset_of(log, users=12, items=25, published=None):
    missing = np.full(items + 1, -1, np.int64)
    texts = ("",) * (items + 1)
    columns = [
        "width",
        "height",
        "total_view",
        "total_bookmarks",
        "sanity_level",
        "restrict",
        "x_restrict",
    ]
    return Dataset(
        name="random",
        simulated=False,
        items=Items(
            illust_id=("", *(f"i{k}" for k in range(1, items + 1))),
            title=texts,
            artist=texts,
            description=texts,
            category=texts,
            tags=((),) * (items + 1),
            published=missing if published is None else published,
            **dict.fromkeys(columns, missing),
        ),
        users=Users(
            ("", *(f"u{k}" for k in range(1, users + 1))),
            ("",) * (users + 1),
        ),
        interactions=log,
        fingerprint="test",
    )
