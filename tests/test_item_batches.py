"""Batches of interactions with what the encoders read of their items."""

import numpy as np
import pytest

from umair_jax.data.batches import BatchSource
from umair_jax.data.item_batches import DistinctItemSource, EncoderInputs, distinct
from umair_jax.data.tokenizer import encode_ragged, train_tokenizer

ITEMS, ROWS = 30, 200
TEXTS = ["", *(f"thing {k} " * (1 + k % 3) for k in range(1, ITEMS + 1))]


def columns():
    rng = np.random.default_rng(0)
    return {
        "item": rng.integers(1, ITEMS + 1, ROWS).astype(np.int32),
        "label": rng.integers(0, 2, ROWS).astype(np.int8),
    }


@pytest.fixture(scope="module")
def inputs():
    pixels = np.random.default_rng(1).integers(0, 256, (ITEMS + 1, 4, 4, 3), np.uint8)
    return EncoderInputs(pixels, encode_ragged(train_tokenizer(TEXTS, 60), TEXTS, 12))


def source(inputs, **options):
    return DistinctItemSource(columns(), inputs, 16, seed=3, **options)


def test_examples_are_those_of_a_plain_source_and_point_to_their_items(inputs):
    made, plain = source(inputs), BatchSource(columns(), 16, seed=3)
    for k in (0, 5, 13):
        batch = made.batch(k)
        for name, array in plain.batch(k).items():
            np.testing.assert_array_equal(batch[name], array)
        np.testing.assert_array_equal(batch["items"][batch["slot"]], batch["item"])
        assert set(batch["items"]) == set(batch["item"])
        np.testing.assert_array_equal(batch["pixels"], inputs.pixels[batch["items"]])
        for row, tokens, length in zip(
            batch["items"], batch["tokens"], batch["length"], strict=True
        ):
            start = inputs.texts.starts[row]
            assert length == inputs.texts.lengths[row]
            np.testing.assert_array_equal(
                tokens[:length], inputs.texts.tokens[start : start + length]
            )
            assert (tokens[length:] == inputs.texts.pad).all()


def test_hosts_share_examples_and_distinct_items(inputs):
    made = source(inputs, multiple=4)
    whole = made.batch(2)
    assert len(whole["items"]) % 4 == 0
    quarters = [made.batch(2, slice(4 * k, 4 * k + 4)) for k in range(4)]
    for name, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([part[name] for part in quarters]))


def test_an_ordered_pass_is_padded_with_an_item_of_its_own(inputs):
    made = source(inputs, shuffle=False, index=np.arange(20))
    first, last = made.padded_batches()
    assert (first["weight"].sum(), last["weight"].sum()) == (16, 4)
    np.testing.assert_array_equal(last["items"][last["slot"]], last["item"])


@pytest.mark.parametrize("multiple", [1, 3, 8])
def test_few_sizes_serve_all_batches(multiple):
    batch, sizes = 48 * 8, set()
    for count in range(1, batch + 1):
        items, slot = distinct(np.resize(np.arange(count), batch), multiple)
        assert count <= len(items) <= batch
        assert len(items) % multiple == 0
        assert len(items) <= max(1.25 * count + multiple, multiple)
        np.testing.assert_array_equal(items[slot], np.resize(np.arange(count), batch))
        sizes.add(len(items))
    assert len(sizes) <= 4 * np.log2(batch)


def test_the_catalogue_must_be_one(inputs):
    with pytest.raises(ValueError, match="pictures of 30 rows, expected those of the 31 texts"):
        EncoderInputs(inputs.pixels[1:], inputs.texts)
    with pytest.raises(ValueError, match="multiple of 5"):
        source(inputs, multiple=5)
