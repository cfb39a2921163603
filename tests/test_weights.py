"""Weights on disk: every dtype, metadata, and what is refused."""

import os

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from umair_jax.models import weights
from umair_jax.models.initialise import HostDraws
from umair_jax.models.resnet import BatchNorm, Convolution, ResNet, ResNetConfig


class Small(nnx.Module):
    def __init__(self, seed=0):
        self.conv = Convolution(2, 3, 3, 1, rngs=HostDraws(seed))
        self.norm = BatchNorm(3, ResNetConfig())


@pytest.mark.parametrize(
    ("dtype", "error"), [("float32", 0.0), ("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_what_is_saved_in_any_dtype_is_loaded_as_float32(tmp_path, dtype, error):
    first, second = Small(0), Small(1)
    path = tmp_path / "small.safetensors"
    weights.save(first, path, dtype=dtype, metadata={"made by": "a test"})
    weights.load(second, path)
    for name, array in weights.flatten(first).items():
        got = weights.flatten(second)[name]
        assert got.dtype == np.float32
        assert np.abs(got - array).max() <= error * np.abs(array).max(), name
    assert {array.dtype.name for array in weights.read(path).values()} == {dtype}
    assert weights.read_metadata(path) == {"made by": "a test"}
    assert os.listdir(tmp_path) == ["small.safetensors"]


def test_without_metadata_there_is_none(tmp_path):
    weights.save(Small(), tmp_path / "small.safetensors")
    assert weights.read_metadata(tmp_path / "small.safetensors") == {}


def test_views_are_written_in_their_own_order(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    weights.write({"x": array.transpose(2, 0, 1), "y": array[:, ::2]}, tmp_path / "x.safetensors")
    found = weights.read(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(found["x"], array.transpose(2, 0, 1))
    np.testing.assert_array_equal(found["y"], array[:, ::2])


def test_shapes_need_no_arrays():
    abstract = nnx.eval_shape(lambda: ResNet(ResNetConfig(blocks=(1,)), rngs=nnx.Rngs(0)))
    real = weights.flatten(ResNet(ResNetConfig(blocks=(1,)), rngs=HostDraws(0)))
    assert weights.shapes(abstract) == {name: array.shape for name, array in real.items()}


def test_values_too_large_for_float16_are_refused_and_nothing_is_written(tmp_path):
    module = Small()
    module.norm.var[...] = jnp.array([1.0, 1e5, 1.0])
    with pytest.raises(
        ValueError, match=r"1 arrays .* float16; store(?s:.*)norm/var: up to 1e\+05"
    ):
        weights.save(module, tmp_path / "small.safetensors", dtype="float16")
    assert not os.listdir(tmp_path)
    weights.save(module, tmp_path / "small.safetensors", dtype="bfloat16")


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got 'int8', expected one of"):
        weights.save(Small(), tmp_path / "small.safetensors", dtype="int8")


def test_all_problems_of_a_file_are_told_at_once(tmp_path):
    flat = weights.flatten(Small())
    del flat["norm/mean"]
    flat["norm/scale"] = flat["norm/scale"][:2]
    flat["norm/bias"] = flat["norm/bias"].astype(np.int64)
    flat["head/bias"] = np.zeros(1, np.float32)
    save_file(flat, tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match="do not fit Small: 4 problems") as told:
        weights.load(Small(), tmp_path / "small.safetensors")
    for line in (
        "missing: norm/mean",
        "unknown: head/bias",
        "shape of norm/scale: got (2,), expected (3,)",
        "dtype of norm/bias: got int64",
    ):
        assert line in str(told.value)


@pytest.mark.parametrize("read", [weights.read, weights.read_metadata])
def test_a_truncated_or_absent_file_is_named(tmp_path, read):
    path = tmp_path / "small.safetensors"
    with pytest.raises(ValueError, match=r"small\.safetensors' cannot be read"):
        read(path)
    weights.save(Small(), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"small\.safetensors' cannot be read"):
        read(path)
