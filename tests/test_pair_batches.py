import numpy as np
import pytest

from tests.test_packing import ragged
from umair_jax.data.pair_batches import PairSource, padding_share

WIDTH = 16


@pytest.fixture(scope="module")
def texts():
    lengths = np.random.default_rng(0).integers(3, WIDTH + 1, 50).astype(np.int32)
    return ragged(lengths)


def source(texts, batch_size=8, pairs=23, **options):
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 50, (2, pairs)).astype(np.int32)
    return PairSource(texts, first, second, batch_size, row_tokens=WIDTH, **options)


def unpacked(texts, batch, slot):
    rows = {name: batch[name].reshape(-1, WIDTH) for name in ("tokens", "slot", "position")}
    row, column = np.nonzero(rows["slot"] == slot)
    assert len(np.unique(row)) <= 1
    assert rows["position"][row, column].tolist() == list(range(len(row)))
    return rows["tokens"][row, column].tolist()


@pytest.mark.parametrize("batch_size", [8, 12, 5])
def test_every_text_is_in_its_slot_once(texts, batch_size):
    negative = np.full(23, -1, np.int32)
    negative[::3] = 7
    found = source(texts, batch_size, negative=negative)
    for number in range(5):
        batch = found.batch(number)
        assert {len(array) for array in batch.values()} == {batch_size}
        for kind, name in enumerate(("first", "second", "negative")):
            for i, place in enumerate(batch[name]):
                expected = []
                if place >= 0:
                    start = texts.starts[place]
                    expected = texts.tokens[start : start + texts.lengths[place]].tolist()
                assert unpacked(texts, batch, kind * batch_size + i) == expected


def test_hosts_share_one_packing(texts):
    whole = source(texts).batch(3)
    for rows in (slice(0, 4), slice(4, 8)):
        part = source(texts).batch(3, rows)
        assert set(part) == set(whole)
        for name in whole:
            np.testing.assert_array_equal(part[name], whole[name][rows])
    last = list(source(texts, shuffle=False).padded_batches())[-1]
    share = list(source(texts, shuffle=False).padded_batches(slice(4, 8)))[-1]
    np.testing.assert_array_equal(share["slot"], last["slot"][4:])
    assert last["weight"].sum() == 23 % 8


def test_an_epoch_has_each_kind_as_often_as_asked(texts):
    group = np.array([0] * 10 + [1] * 13, np.int32)
    found = source(texts, 5, group=group, mix=(2.5, 0.0))
    assert len(found) == 25
    batches = [found.batch(k) for k in range(5)]
    seen = np.concatenate([batch["first"] for batch in batches])
    kept = found.columns["first"][:10]
    np.testing.assert_array_equal(np.unique(seen, return_counts=True)[0], np.unique(kept))
    counts = [(seen == place).sum() / (kept == place).sum() for place in np.unique(kept)]
    assert min(counts) >= 2
    assert max(counts) <= 3
    assert [b["first"].tolist() for b in batches] != [
        found.batch(k)["first"].tolist() for k in range(5, 10)
    ]
    with pytest.raises(ValueError, match="mix"):
        source(texts, 5, group=group * 0, mix=(0.0,))


def test_a_text_that_passes_a_row_is_refused(texts):
    with pytest.raises(ValueError, match=f"expected at least {texts.lengths.max()}"):
        PairSource(texts, np.zeros(3, np.int32), np.ones(3, np.int32), 2, row_tokens=WIDTH - 1)


def test_padding_share_counts_tokens(texts):
    batch = source(texts).batch(0)
    used = texts.lengths[batch["first"]].sum() + texts.lengths[batch["second"]].sum()
    assert padding_share([batch, batch]) == pytest.approx(1 - used / batch["tokens"].size)
