"""A made-up site with everything on it: tags, artists, counts, vectors, simulated truth."""

import dataclasses
from collections import Counter

import numpy as np
from logs import random_log

from umair_jax.data import ranking, splits
from umair_jax.data.dataset import Dataset, Items, Users
from umair_jax.data.feature_bank import FeatureBank
from umair_jax.data.fields import LONG_TAGS, SHORT_TAGS, Side
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.schema_config import SchemaConfig

USERS, ITEMS = 8, 15
WIDTHS = {"content": 6, "style": 4, "text": 5}
SCHEMA = SchemaConfig(
    embedding_width=4,
    sizes={
        "illust_id": 40,
        "artist_id": 20,
        "item_tag": 30,
        "user_tag": 24,
        "user_id": 32,
        "username": 16,
    },
    boundaries={"total_view": (1.0, 2.0, 4.0, 8.0, 16.0), "total_bookmarks": (1.0, 2.0, 3.0, 5.0)},
    bookmark_rate=(0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
    interest_vectors=("text", "style", "content"),
)
FRACTIONS = (0.6, 0.2, 0.2)


def dataset(seed=0, rows=64, users=USERS, items=ITEMS, seconds=40, sampled=True):
    """Ties in time, missing values of every kind, sampled negatives, true probabilities."""
    rng = np.random.default_rng([5, seed])
    log = random_log(seed, rows, users, items, seconds)
    log = dataclasses.replace(
        log,
        true_probability=rng.random(rows).astype(np.float32),
        sampled=(log.label == 0) & (rng.random(rows) < 0.3) if sampled else None,
    )

    def numbers(*choices):
        return np.array([-1, *rng.choice([-1, *choices], items)], np.int64)

    def texts(prefix, kinds):
        return ("", *(f"{prefix}{k}" if k else "" for k in rng.integers(0, kinds, items)))

    tags = [rng.permutation(9)[: rng.integers(0, 6)] for _ in range(items)]
    return Dataset(
        name="made up",
        simulated=True,
        items=Items(
            illust_id=("", *(f"i{k}" for k in range(1, items + 1))),
            title=texts("title ", 9),
            artist=texts("artist ", 4),
            description=texts("", 2),
            category=texts("c", 3),
            tags=((), *(tuple(f"tag {t}" for t in row) for row in tags)),
            width=numbers(300, 400, 900, 2000),
            height=numbers(300, 400, 900, 2000),
            total_view=numbers(0, 1, 6),
            total_bookmarks=numbers(0, 1),
            sanity_level=numbers(0, 2, 4, 12),
            restrict=numbers(0, 1),
            x_restrict=numbers(0, 1, 2),
            published=numbers(5),
        ),
        users=Users(
            user_id=("", *(f"u{k}" for k in range(1, users + 1))),
            username=("", *(f"name {k % 3}" if k % 4 else "" for k in range(1, users + 1))),
            true_mixture=rng.random((users + 1, 4)).astype(np.float32),
        ),
        interactions=log,
        fingerprint="test",
    )


def bank(seed=0, items=ITEMS):
    """Random vectors, a fifth of them missing."""
    rng = np.random.default_rng([6, seed])
    flags = [np.concatenate([[False], rng.random(items) < 0.8]) for _ in range(2)]
    there = {"content": flags[0], "style": flags[0], "text": flags[1]}
    vectors = [
        np.where(there[name][:, None], rng.gamma(2, 3, (items + 1, width)), 0).astype(np.float32)
        for name, width in WIDTHS.items()
    ]
    return FeatureBank(*vectors, *flags, manifest={"trained": False})


def build(data=None, vectors=None, schema=SCHEMA, folder=None, **options):
    """The columns and the context of a made-up site."""
    options = {"fractions": FRACTIONS} | options
    return ranking.build(
        data or dataset(), vectors or bank(), schema.schema(), RankingConfig(**options), folder
    )


# What the ranker reads ---------------------------------------------------------------------------


def readings(data):
    """By interaction, every byte that the ranker may read: its columns and what they point to.

    Only the label is left out; the number of a state is a pointer and no input.
    """
    columns = data.columns
    counted = [field.name for field in ranking.counted(data.schema)]
    assert set(columns) == {"user", "item", "state", "label", *counted}
    pointers = {"item_rows": "item", "present": "item", "user_rows": "user", "state_rows": "state"}
    pointers |= {
        field.column: "state" if field.side is Side.USER else "item"
        for field in data.schema.dense()
    }
    assert set(pointers) == set(data.context)
    read = [columns[name] for name in ("user", "item", *counted)]
    read += [array[columns[pointers[name]]] for name, array in data.context.items()]
    flat = [np.ascontiguousarray(a).reshape(len(a), -1).view(np.uint8) for a in read]
    return np.concatenate(flat, axis=1)


def keep_split(monkeypatch, part):
    """The split stays what it was, whatever a test does to the log."""
    monkeypatch.setattr(splits, "split", lambda *_: part)


# The obvious way --------------------------------------------------------------------------------


def bookmarks_before(data, part, kind, k, count):
    """Item rows of the bookmarks that interaction k may know of, oldest first."""
    log = data.interactions
    found = [
        (log.timestamp[j], log.item[j])
        for j in range(len(log))
        if log.user[j] == log.user[k]
        and log.label[j] == 1
        and log.timestamp[j] < log.timestamp[k]
        and (kind != "cold_item" or part[j] == splits.TRAIN)
    ]
    return [item for _, item in sorted(found)][-count:]


def counts_before(data, part, kind, k):
    """Views and bookmarks of interaction k's item before its second."""
    log, row = data.interactions, data.interactions.item[k]
    views = max(data.items.total_view[row], 0)
    marks = max(data.items.total_bookmarks[row], 0)
    for j in range(len(log)):
        seen = log.sampled is None or not log.sampled[j]
        visible = kind == "temporal" or part[j] == splits.TRAIN
        if log.item[j] == row and log.timestamp[j] < log.timestamp[k] and seen and visible:
            views += 1
            marks += log.label[j] == 1
    return int(views), int(marks)


def favourite_tags(data, rows):
    recent = [tag for row in reversed(rows) for tag in data.items.tags[row]]
    count = Counter(recent)
    best = sorted(count, key=lambda tag: (-count[tag], recent.index(tag)))[:4]
    return best + [""] * (4 - len(best))


def value(field, data, part, kind, k, long_max=50, short_max=8):
    """What a sparse field holds at interaction k."""
    log = data.interactions
    views, marks = counts_before(data, part, kind, k)
    counted = {
        "total_view": views,
        "total_bookmarks": marks,
        "bookmark_rate": (marks + 1) / (views + 4),
    }
    if field.column in counted:
        return counted[field.column]
    if field.column in (LONG_TAGS, SHORT_TAGS):
        count = long_max if field.column == LONG_TAGS else short_max
        rows = bookmarks_before(data, part, kind, k, count)
        return favourite_tags(data, rows)[field.position]
    table, row = (data.items, log.item[k]) if field.side is Side.ITEM else (data.users, log.user[k])
    found = getattr(table, field.column)[row]
    if field.position >= 0:
        return found[field.position] if len(found) > field.position else ""
    return found


def table_rows(schema, data, part, kind, k, **windows):
    """Embedding rows and wide rows of interaction k, users' fields first, one field at a time."""
    fields = (*schema.sparse(Side.USER), *schema.sparse(Side.ITEM))
    rows = []
    for field in fields:
        held = value(field, data, part, kind, k, **windows)
        local = schema.encode(field.name, [held] if isinstance(held, str) else np.array([held]))
        rows.append([schema.embedding_rows(field.name, local), schema.wide_rows(field.name, local)])
    return np.array(rows)[..., 0].T
