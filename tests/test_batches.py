import numpy as np
import pytest

from umair_jax.data.batches import BatchSource


def columns(n=23):
    return {"item": np.arange(n, dtype=np.int32), "user": np.arange(n, dtype=np.int32) * 2}


def test_every_epoch_holds_every_example_once_and_nothing_is_dropped():
    source = BatchSource(columns(), 5, seed=1)
    served = np.concatenate([source.batch(k)["item"] for k in range(23)])
    epochs = served.reshape(5, 23)
    for epoch in epochs:
        assert sorted(epoch) == list(range(23))
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_batch_is_a_function_of_seed_and_number():
    first, second = BatchSource(columns(), 5, seed=1), BatchSource(columns(), 5, seed=1)
    for k in (40, 3, 0, 41):
        np.testing.assert_array_equal(first.batch(k)["item"], second.batch(k)["item"])
    other = BatchSource(columns(), 5, seed=2)
    assert not np.array_equal(first.batch(0)["item"], other.batch(0)["item"])
    np.testing.assert_array_equal(first.batch(7)["user"], first.batch(7)["item"] * 2)


@pytest.mark.parametrize("threads", [0, 2])
def test_iterate_begins_anywhere_and_keeps_the_order(threads):
    source = BatchSource(columns(), 5, seed=1)
    batches = list(source.iterate(7, 19, threads=threads))
    assert len(batches) == 12
    for k, batch in enumerate(batches, start=7):
        np.testing.assert_array_equal(batch["item"], source.batch(k)["item"])
    endless = source.iterate(100, threads=threads)
    np.testing.assert_array_equal(next(endless)["item"], source.batch(100)["item"])
    assert list(source.iterate(4, 4)) == []


def test_hosts_share_the_same_global_batch():
    source = BatchSource(columns(), 8, seed=1)
    whole = source.batch(5)["item"]
    halves = [source.batch(5, slice(0, 4))["item"], source.batch(5, slice(4, 8))["item"]]
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_padded_batches_count_every_example_once():
    index = np.array([4, 9, 2, 17, 11, 5, 6])
    source = BatchSource(columns(), 4, shuffle=False, index=index)
    batches = list(source.padded_batches())
    assert [len(batch["item"]) for batch in batches] == [4, 4]
    weight = np.concatenate([batch["weight"] for batch in batches])
    item = np.concatenate([batch["item"] for batch in batches])
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, [1] * 7 + [0])
    np.testing.assert_array_equal(item[:7], index)
    np.testing.assert_array_equal(source.column("item"), index)
    right = np.concatenate([b["item"] for b in source.padded_batches(slice(2, 4))])
    np.testing.assert_array_equal(right, [2, 17, 6, 4])


def test_index_serves_only_the_split():
    index = np.array([1, 3, 5, 7])
    source = BatchSource(columns(), 4, seed=0, index=index)
    for k in range(3):
        assert sorted(source.batch(k)["item"]) == [1, 3, 5, 7]


def test_weights_of_the_examples_are_kept():
    given = columns(5) | {"weight": np.array([0.5, 1, 2, 3, 4])}
    source = BatchSource(given, 4, shuffle=False)
    np.testing.assert_array_equal(source.batch(0)["weight"], [0.5, 1, 2, 3])
    last = list(source.padded_batches())[-1]["weight"]
    np.testing.assert_array_equal(last, [4, 0, 0, 0])
    assert last.dtype == np.float32


def test_a_batch_larger_than_the_data_spans_epochs():
    source = BatchSource(columns(3), 7, seed=0)
    item = source.batch(0)["item"]
    assert sorted(item[:3]) == sorted(item[3:6]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": {}}, "no columns"),
        ({"columns": {"a": np.zeros(2), "b": np.zeros(3)}}, "different lengths"),
        ({"columns": {"a": np.zeros(0)}}, "no examples"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"index": np.array([5, 23])}, "23 entries"),
    ],
)
def test_mistakes_are_named(change, message):
    given = {"columns": columns(), "batch_size": 4} | change
    with pytest.raises(ValueError, match=message):
        BatchSource(**given)
