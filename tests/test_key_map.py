"""Tables of names: both directions, layouts, and every kind of problem at once."""

import numpy as np
import pytest

from umair_jax.interop import key_map
from umair_jax.interop.key_map import Rule, Transform

RULES = (
    Rule("stages.{s-1}.{b}.weight", "layer{s}/block{b}/kernel", Transform.CONVOLUTION),
    Rule("stages.{s-1}.{b}.bias", "layer{s}/block{b}/bias"),
    Rule("stem.bias", "stem/bias"),
    Rule("head.bias", "", reason="classifier"),
)


def source(**changes):
    arrays = {
        "stages.0.3.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1),
        "stages.11.0.bias": np.ones(2, np.float16),
        "stem.bias": np.zeros(5),
        "head.bias": np.zeros(1, np.float32),
    }
    return {name: array for name, array in (arrays | changes).items() if array is not None}


EXPECTED = {"layer1/block3/kernel": (4, 1, 3, 2), "layer12/block0/bias": (2,), "stem/bias": (5,)}


def test_there_and_back_again():
    found = key_map.to_ours(source(), RULES)
    found.complete(EXPECTED, "test")
    assert {array.dtype.name for array in found.arrays.values()} == {"float32"}
    # OIHW to HWIO.
    assert (
        found.arrays["layer1/block3/kernel"][3, 0, 2, 1] == source()["stages.0.3.weight"][1, 2, 3]
    )
    assert found.dropped == {"head.bias": "classifier"}
    back = key_map.to_theirs(found.arrays, RULES)
    assert set(back) == set(source()) - {"head.bias"}
    for name, array in back.items():
        np.testing.assert_array_equal(array, source()[name])


def test_prefixes_are_taken_off_in_turn():
    given = {f"module.backbone.{name}": array for name, array in source().items()}
    found = key_map.to_ours(given, RULES, ("module.", "backbone."))
    found.complete(EXPECTED, "test")
    assert found.origin["stem/bias"][0] == "module.backbone.stem.bias"


def test_all_problems_are_raised_at_once_by_the_names_of_the_file():
    given = source(
        **{
            "stages.11.0.bias": None,  # missing
            "stages.0.3.weight": np.zeros((2, 3, 1, 1), np.float32),  # shape
            "stages.0.03.bias": np.zeros(2, np.float32),  # no such number
            "stages.0.4.bias": np.zeros(2, np.float32),  # not of this network
            "extra": np.zeros(2, np.float32),
        }
    )
    given["stem.bias"] = np.array([0, 1, np.nan, 2, 3], np.float32)
    given["module.stem.bias"] = np.zeros(5, np.float32)
    with pytest.raises(ValueError, match="test: 7 problems") as told:
        key_map.to_ours(given, RULES, ("module.",)).complete(EXPECTED, "test")
    for line in (
        "missing: stages.11.0.bias (for layer12/block0/bias)",
        "shape of stages.0.3.weight: got (2, 3, 1, 1), expected (2, 3, 4, 1)",
        "unknown: stages.0.03.bias",
        "unknown: stages.0.4.bias",
        "unknown: extra",
        "twice the same: module.stem.bias and stem.bias",
        "values of stem.bias: got infinities or NaN",
    ):
        assert f"\n  {line}" in str(told.value)


def test_a_wrong_rank_is_a_wrong_shape():
    given = source(**{"stages.0.3.weight": np.zeros((2, 3), np.float32)})
    with pytest.raises(ValueError, match=r"stages\.0\.3\.weight: got \(2, 3\), expected \(2, 3, 4"):
        key_map.to_ours(given, RULES).complete(EXPECTED, "test")


def test_integers_are_no_weights():
    given = source(**{"stem.bias": np.zeros(5, np.int8)})
    with pytest.raises(ValueError, match=r"dtype of stem\.bias: got int8, expected floats"):
        key_map.to_ours(given, RULES).complete(EXPECTED, "test")


def test_a_long_list_is_cut():
    text = key_map.listed([f"unknown: {i}" for i in range(100)])
    assert text.startswith("100 problems\n  unknown: 0\n")
    assert text.endswith("unknown: 29\n  and 70 more")


def test_names_without_a_rule_cannot_leave():
    arrays = {"stem/bias": np.zeros(5), "stem/kernel": np.zeros(5), "head": np.zeros(1)}
    with pytest.raises(ValueError, match=r"2 problems\n  unknown: stem/kernel\n  unknown: head"):
        key_map.to_theirs(arrays, RULES)
