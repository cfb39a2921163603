import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models import weights
from umair_jax.models.initialise import HostDraws
from umair_jax.models.resnet import ResNet, ResNetConfig, max_pool

GOLDEN = Path(__file__).parent / "golden" / "torch_resnet.npz"
LEAVES = {
    "running_mean": "mean",
    "running_var": "var",
    "bias": "bias",
}


def ours_of_torch(golden) -> dict[str, np.ndarray]:
    """Our paths and layouts for the golden's torch weights."""
    flat = {}
    for key in golden:
        if not key.startswith("w/"):
            continue
        value, path = golden[key], key[2:]
        path = path.replace("downsample.0", "downsample_conv").replace(
            "downsample.1", "downsample_bn"
        )
        path = re.sub(r"^(layer\d+)\.(\d+)\.", r"\1/block\2/", path)
        room, leaf = path.rsplit(".", 1)
        if value.ndim == 4:
            flat[f"{room}/kernel"] = value.transpose(2, 3, 1, 0)
        else:
            flat[f"{room}/{LEAVES.get(leaf, 'scale')}"] = value
    return flat


def relative_error(got, expected):
    return np.abs(np.asarray(got) - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def model(golden):
    cfg = ResNetConfig(base_width=4, blocks=(2, 1, 2, 1))
    network = ResNet(cfg, rngs=HostDraws(0))
    weights.fill(network, ours_of_torch(golden))
    return network


@pytest.mark.parity
@pytest.mark.parametrize("train", [False, True])
def test_every_block_matches_torch(golden, model, train):
    stages = model(jnp.asarray(golden["x"].transpose(0, 2, 3, 1)), train=train)
    sums = [block for stage in stages for block in stage]
    name = "y_train" if train else "y"
    assert len(sums) == 6
    for i, block in enumerate(sums):
        expected = golden[f"{name}/{i}"].transpose(0, 2, 3, 1)
        assert relative_error(block, expected) < 1e-4, i


@pytest.mark.parity
def test_training_updates_running_mean_as_torch(golden, model):
    model(jnp.asarray(golden["x"].transpose(0, 2, 3, 1)), train=True)
    np.testing.assert_allclose(
        np.asarray(model.bn1.mean[...]), golden["after/bn1.running_mean"], rtol=1e-4, atol=1e-6
    )


def test_full_size_shapes_and_parameter_count():
    cfg = ResNetConfig(depth=101, base_width=64)
    model = nnx.eval_shape(lambda: ResNet(cfg, rngs=nnx.Rngs(0)))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert count == 44_549_160 - (2048 * 1000 + 1000)  # torchvision's resnet101 without its head
    graph, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32)
    stages = jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), state, images)
    assert [len(stage) for stage in stages] == [3, 4, 23, 3]
    assert [stage[-1].shape for stage in stages] == [
        (2, 128, 128, 256),
        (2, 64, 64, 512),
        (2, 32, 32, 1024),
        (2, 16, 16, 2048),
    ]


def test_max_pool_pads_with_minus_infinity():
    x = jnp.full((1, 4, 4, 1), -1.0)
    np.testing.assert_array_equal(max_pool(x), np.full((1, 2, 2, 1), -1.0))


def test_inference_does_not_depend_on_the_batch():
    cfg = ResNetConfig(base_width=4, blocks=(1, 1))
    model = ResNet(cfg, rngs=HostDraws(1))
    x = jax.random.uniform(jax.random.key(0), (3, 32, 32, 3))
    whole, alone = model(x)[-1][-1][:1], model(x[:1])[-1][-1]
    np.testing.assert_allclose(whole, alone, rtol=1e-5, atol=1e-6)


def test_bfloat16_keeps_parameters_and_statistics_float32():
    cfg = ResNetConfig(base_width=4, blocks=(1, 1), dtype="bfloat16")
    model = ResNet(cfg, rngs=HostDraws(1))
    y = model(jnp.ones((2, 32, 32, 3)), train=True)[-1][-1]
    assert y.dtype == jnp.bfloat16
    assert all(array.dtype == np.float32 for array in weights.flatten(model).values())


def test_gradients_reach_every_parameter():
    cfg = ResNetConfig(base_width=4, blocks=(1, 2))
    graph, params, stats = nnx.split(ResNet(cfg, rngs=HostDraws(1)), nnx.Param, nnx.BatchStat)
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))

    def loss(params, stats):
        model = nnx.merge(graph, params, stats)
        y = model(x, train=True)[-1][-1]
        return jnp.square(jax.nn.relu(y)).mean(), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    grads, updated = jax.jit(jax.grad(loss, has_aux=True))(
        nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    )
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))
    assert np.abs(updated["bn1"]["mean"]).max() > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 34}, "got 34, expected one of"),
        ({"base_width": 0}, "base_width"),
        ({"dtype": "float16"}, "float16"),
        ({"blocks": (1, 0)}, "blocks"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ResNetConfig(**options)
