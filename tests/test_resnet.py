import doctest
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models import resnet, weights
from umair_jax.models.initialise import HostDraws
from umair_jax.models.resnet import Convolution, ResNet, ResNetConfig, max_pool

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


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_max_pool_pads_with_minus_infinity(padding):
    x = jnp.full((1, 4, 4, 1), -1.0)
    np.testing.assert_array_equal(max_pool(x, padding), np.full((1, 2, 2, 1), -1.0))


@pytest.mark.parametrize(("size", "side"), [(3, 8), (3, 9), (7, 8), (7, 11)])
def test_same_padding_is_tensorflows(size, side):
    # TensorFlow: all in all (outputs - 1) * stride + size - inputs, the odd one at the end.
    outputs = (side + 1) // 2
    total = (outputs - 1) * 2 + size - side
    pads = ((0, 0), *((total // 2, total - total // 2),) * 2, (0, 0))
    x = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    convolve = Convolution(3, 5, size, 2, "same", rngs=HostDraws(0))
    kernel = convolve.kernel[...]
    windows = jnp.pad(x, pads)
    expected = jax.lax.conv_general_dilated(
        windows, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(convolve(x), expected, rtol=1e-5, atol=1e-5)
    if size == 3:
        windows = np.pad(x, pads, constant_values=-np.inf)
        blocks = [windows[:, i::2, j::2][:, :outputs, :outputs] for i in range(3) for j in range(3)]
        np.testing.assert_array_equal(max_pool(x, "same"), np.max(blocks, axis=0))


def test_symmetric_and_same_padding_differ_where_torch_and_keras_do():
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    torch, keras = (Convolution(3, 2, 3, 2, p, rngs=HostDraws(0)) for p in resnet.PADDINGS)
    assert torch(x).shape == keras(x).shape == (1, 4, 4, 2)
    assert np.abs(torch(x) - keras(x)).max() > 0.1
    # At odd sizes and at stride 1 both are the same.
    np.testing.assert_allclose(torch(x[:, 1:, 1:]), keras(x[:, 1:, 1:]), rtol=1e-5, atol=1e-6)


def test_stages_of_any_number_and_width():
    cfg = ResNetConfig(base_width=6, blocks=(1, 2, 1, 1, 1), widths=(4, 4, 5, 5, 3))
    model = ResNet(cfg, rngs=HostDraws(0))
    stages = jax.eval_shape(model, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    shapes = [stage[-1].shape[1:] for stage in stages]
    assert shapes == [(16, 16, 16), (8, 8, 16), (4, 4, 20), (2, 2, 20), (1, 1, 12)]
    assert [cfg.channels(stage) for stage in range(1, 6)] == [shape[-1] for shape in shapes]
    # Same width, half the resolution: the shortcut needs its convolution all the same.
    assert model.layer2.block0.project
    assert not model.layer2.block1.project


def test_the_backbone_of_the_papers_authors_by_shape():
    cfg = ResNetConfig(
        blocks=(3, 8, 20, 20, 3, 3), widths=(64, 128, 256, 256, 512, 1024), padding="same"
    )
    graph, state = nnx.split(nnx.eval_shape(lambda: ResNet(cfg, rngs=nnx.Rngs(0))))
    images = jax.ShapeDtypeStruct((1, 512, 512, 3), jnp.float32)
    stages = jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), state, images)
    assert stages[0][2].shape == (1, 128, 128, 256)  # style
    assert stages[3][12].shape == (1, 16, 16, 1024)  # content
    assert stages[5][-1].shape == (1, 4, 4, 4096)


def test_examples():
    assert doctest.testmod(resnet) == (0, 2)


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


def training_step(remat, blocks=(2,), train=True):
    """(params, stats) -> (loss, (outputs, new statistics)) and its arguments."""
    cfg = ResNetConfig(base_width=4, blocks=blocks, remat=remat)
    graph, params, stats = nnx.split(ResNet(cfg, rngs=HostDraws(1)), nnx.Param, nnx.BatchStat)
    x = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))

    def loss(params, stats):
        model = nnx.merge(graph, params, stats)
        sums = model(x, train)
        updated = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        return jnp.square(jax.nn.relu(sums[-1][-1])).mean(), (sums, updated)

    return loss, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def test_rematerialised_blocks_change_no_output_gradient_or_statistic():
    found = {}
    for remat in resnet.REMATS:
        loss, params, stats = training_step(remat)
        found[remat] = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, stats)
    flat, structure = jax.tree.flatten(found["none"])
    again, structure_again = jax.tree.flatten(found["block"])
    assert structure == structure_again
    for one, other in zip(flat, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    (_, (_, updated)), _ = found["block"]
    _, _, before = training_step("none")
    for new, old in zip(jax.tree.leaves(updated), jax.tree.leaves(before), strict=True):
        assert np.abs(new - old).max() > 0


@pytest.mark.parametrize("train", [True, False])
def test_rematerialised_blocks_keep_less_for_the_way_back(train):
    kept = {}
    for remat in resnet.REMATS:
        loss, params, stats = training_step(remat, (3, 4), train)
        residuals = functools.partial(jax.vjp, lambda p, loss=loss, stats=stats: loss(p, stats)[0])
        leaves = jax.tree.leaves(jax.eval_shape(lambda p, r=residuals: r(p)[1], params))
        kept[remat] = sum(leaf.size for leaf in leaves if leaf.ndim == 4)
    assert kept["block"] < kept["none"] / 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 34}, "got 34, expected one of"),
        ({"base_width": 0}, "base_width"),
        ({"dtype": "float16"}, "float16"),
        ({"blocks": (1, 0)}, "blocks"),
        ({"widths": (4, 4)}, r"widths: got \(4, 4\) for blocks \(3, 4, 23, 3\)"),
        ({"widths": (4, 4, 0), "blocks": (1, 1, 1)}, "widths"),
        ({"padding": "valid"}, "padding: got 'valid', expected one of"),
        ({"remat": "all"}, "remat: got 'all'"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ResNetConfig(**options)
