import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models import folding, winograd
from umair_jax.models.folding import FoldedImageEncoder
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from umair_jax.models.initialise import HostDraws
from umair_jax.models.resnet import convolve, relu_of_sum

# Wide enough for Winograd's algorithm, sizes that leave odd maps.
SMALL = ImageEncoderConfig(base_width=32, blocks=(2, 1, 2), content_stage=3, image_size=36)


def trained(cfg, seed=0):
    """An encoder whose BatchNorms do something."""
    encoder = ImageEncoder(cfg, rngs=HostDraws(seed))
    draw = np.random.default_rng(seed)
    for kind in (nnx.Param, nnx.BatchStat):
        state = nnx.state(encoder, kind)
        tree = nnx.to_pure_dict(state)

        def vary(path, leaf):
            if leaf.ndim > 1:
                return leaf
            values = draw.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
            return jnp.asarray(values if path[-1].key in ("scale", "var") else values - 1)

        nnx.replace_by_pure_dict(state, jax.tree_util.tree_map_with_path(vary, tree))
        nnx.update(encoder, state)
    return encoder


def pictures(count, size, seed=1):
    return jnp.asarray(np.random.default_rng(seed).random((count, size, size, 3), np.float32))


def run(call, images):
    """A network, or one of its methods; its weights are no constants that XLA would fold."""
    network, name = getattr(call, "__self__", call), getattr(call, "__name__", "__call__")
    graph, state = nnx.split(network)
    return jax.jit(lambda state, x: getattr(nnx.merge(graph, state), name)(x))(state, images)


def difference(ours, reference):
    return float(jnp.abs(ours - reference).max() / jnp.abs(reference).max())


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("changes", [{}, {"padding": "same", "epsilon": 1e-3}])
def test_every_residual_sum_is_that_of_the_network_before(fast, changes):
    encoder = trained(dataclasses.replace(SMALL, **changes))
    folded = FoldedImageEncoder(encoder, fast)
    images = pictures(2, 36)
    ours, reference = run(folded.maps, images), run(encoder.maps, images)
    assert [len(stage) for stage in ours] == [1, 2, 1, 2]
    for stage, expected in zip(ours, reference, strict=True):
        for one, other in zip(stage, expected, strict=True):
            assert one.shape == other.shape
            assert difference(one, other) < 1e-5


def test_fast_means_winograd_where_channels_are_many():
    encoder = trained(dataclasses.replace(SMALL, base_width=16))
    folded = FoldedImageEncoder(encoder, True).backbone
    assert not folded.layer1_block0.conv2.fast  # 16 channels
    assert not folded.layer2_block0.conv2.fast  # stride 2
    assert folded.layer3_block1.conv2.fast  # 64 channels, stride 1
    assert folded.layer3_block1.conv2.kernel.shape == (16, 64, 64)


def test_the_encoder_before_is_left_as_it_was_and_not_seen_again():
    encoder = trained(SMALL)
    images = pictures(2, 36)
    before = run(encoder, images)
    folded = FoldedImageEncoder(encoder)
    np.testing.assert_array_equal(run(encoder, images).content, before.content)
    encoder.backbone.conv1.kernel[...] = jnp.zeros_like(encoder.backbone.conv1.kernel[...])
    assert difference(run(folded, images).content, before.content) < 1e-5


def test_style_settings_and_mean_and_std_are_kept():
    style = dataclasses.replace(
        SMALL.style, stages=(1, 2), compress=True, standardise=True, projection=5
    )
    cfg = dataclasses.replace(SMALL, style=style, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2))
    encoder = trained(cfg)
    images = pictures(3, 36)
    for ours, reference in zip(
        run(FoldedImageEncoder(encoder), images), run(encoder, images), strict=True
    ):
        assert difference(ours, reference) < 1e-4


def test_a_folded_network_does_not_train():
    folded = FoldedImageEncoder(trained(SMALL))
    with pytest.raises(ValueError, match="no batch statistics"):
        folded(pictures(2, 36), train=True)


def test_bfloat16_stays_near_the_network_before():
    encoder = trained(dataclasses.replace(SMALL, dtype="bfloat16"))
    folded = FoldedImageEncoder(encoder, True)
    assert not folded.backbone.layer1_block0.conv2.fast
    assert folded.backbone.layer1_block0.conv2.kernel.dtype == jnp.bfloat16
    images = pictures(2, 36)
    ours, reference = (run(net.maps, images)[1][1] for net in (folded, encoder))
    assert ours.dtype == jnp.bfloat16
    scale = jnp.abs(reference.astype(jnp.float32)).mean()
    away = jnp.abs(ours.astype(jnp.float32) - reference.astype(jnp.float32)).mean()
    assert away / scale < 0.03


def test_pieces_give_the_vectors_of_the_whole_batch_in_order(monkeypatch):
    encoder = trained(SMALL)
    folded = FoldedImageEncoder(encoder, True)
    images = pictures(6, 36)
    whole = run(FoldedImageEncoder(encoder, False), images)
    maps = 4 * 9 * 9 * 128
    for wanted, got in ((2, 2), (5, 3), (100, 6)):
        monkeypatch.setattr(folding, "_PIECE_BYTES", wanted * maps)
        assert folded.piece(images.shape) == got
        for ours, reference in zip(run(folded, images), whole, strict=True):
            assert ours.shape == reference.shape
            assert difference(ours, reference) < 1e-5


@pytest.mark.parametrize("shape", [(2, 6, 6), (1, 7, 5), (3, 1, 1), (1, 2, 3)])
def test_winograd_is_the_convolution(shape):
    draw = np.random.default_rng(2)
    x = jnp.asarray(draw.standard_normal((*shape, 5)), jnp.float32)
    kernel = draw.standard_normal((3, 3, 5, 4)).astype(np.float32)
    ours = jax.jit(winograd.convolve)(x, jnp.asarray(winograd.transformed(kernel)))
    reference = convolve(x, jnp.asarray(kernel), 1, "symmetric")
    assert ours.shape == reference.shape
    assert difference(ours, reference) < 1e-5


def test_relu_of_sum_is_the_relu_of_the_sum_to_the_last_bit():
    draw = np.random.default_rng(3)
    x, y = (jnp.asarray(draw.standard_normal(4000) * 10.0**k, jnp.float32) for k in (0, 2))
    x, y = jnp.append(x, jnp.asarray([1.0, 0.0])), jnp.append(y, jnp.asarray([-1.0, 0.0]))

    def plain(x, y):
        return jax.nn.relu(x + y)

    ours, back = jax.vjp(relu_of_sum, x, y)
    reference, back_plain = jax.vjp(plain, x, y)
    np.testing.assert_array_equal(ours, reference)
    for gradient, expected in zip(back(x), back_plain(x), strict=True):
        np.testing.assert_array_equal(gradient, expected)


def test_a_block_does_not_sum_up_the_blocks_before_it():
    """XLA's fusions read few arrays, however many blocks a stage has."""
    cfg = dataclasses.replace(SMALL, blocks=(8,), content_stage=1)
    encoder = ImageEncoder(cfg, rngs=HostDraws(0))
    graph, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)

    def content(params, stats, x):
        return nnx.merge(graph, params, stats).maps(x)[1][-1].mean((1, 2))

    compiled = jax.jit(content).lower(params, stats, pictures(2, 36)).compile()
    reads = [
        line.split(" fusion(")[1].split(")")[0].count(",") + 1
        for line in compiled.as_text().splitlines()
        if " fusion(" in line and "kind=kLoop" in line
    ]
    assert reads
    assert max(reads) < 16


def test_whitening_is_kept():
    encoder = trained(dataclasses.replace(SMALL, whiten_content=7, whiten_style=5))
    for name, seed in (("whiten_content", 2), ("whiten_style", 3)):
        part = getattr(encoder, name)
        shape = part.kernel[...].shape
        part.kernel[...] = jax.random.normal(jax.random.key(seed), shape)
    images = pictures(2, 36)
    ours, reference = run(FoldedImageEncoder(encoder), images), run(encoder, images)
    assert ours.content.shape == (2, 7)
    for one, other in zip(ours, reference, strict=True):
        assert difference(one, other) < 1e-4
