"""Baselines against the published code: layers with their gradients, whole models' logits."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_goldens_e2e import ITEM_FIELDS, TAGS, USER_FIELDS, close

from umair_jax.models.baselines.autoint import InteractingLayer
from umair_jax.models.baselines.dcn import DCNConfig, DCNV2Config
from umair_jax.models.baselines.deepfm import DeepFMConfig
from umair_jax.models.baselines.difm import DIFMConfig
from umair_jax.models.baselines.edcn import Bridge, Regulation
from umair_jax.models.baselines.fibinet import Bilinear, FiBiNETConfig, FieldExcitation
from umair_jax.models.baselines.finalmlp import BilinearFusion, FinalMLPConfig, Stream
from umair_jax.models.baselines.xdeepfm import CompressedInteraction, XDeepFMConfig
from umair_jax.models.inputs import RankerInputs

GOLDEN = Path(__file__).parent / "golden"
RNGS = {"rngs": nnx.Rngs(0)}

pytestmark = pytest.mark.parity


def golden(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def compare(module, data, inputs, weights):
    """Output and all gradients; `weights`: {path in the module: (file's name, file -> ours)}."""
    for path, (name, ours) in weights.items():
        node = module
        for step in path.split("/"):
            node = node[step] if isinstance(node, nnx.Dict) else getattr(node, step)
        node[...] = ours(data[f"w/{name}"])
    graph, params = nnx.split(module, nnx.Param)

    def apply(params, arrays):
        y = nnx.merge(graph, params)(*arrays)
        return (y.reshape(data["ct"].shape) * data["ct"]).sum(), y

    arrays = [jnp.asarray(data[name]) for name in inputs]
    (_, y), (dparams, dinputs) = jax.jit(jax.value_and_grad(apply, (0, 1), has_aux=True))(
        nnx.to_pure_dict(params), arrays
    )
    close(y, data["y"].reshape(y.shape), "y")
    for name, found in zip(inputs, dinputs, strict=True):
        close(found, data[f"g/{name}"], name)
    for path, (name, ours) in weights.items():
        found = dparams
        for step in path.split("/"):
            found = found[step]
        close(found, ours(data[f"g/w/{name}"]), name)


def same(array):
    return array


def test_compressed_interaction():
    weights = {f"kernels/layer_{k}": (f"CIN_W_{k}", lambda a: a[0]) for k in range(2)}
    compare(CompressedInteraction(6, (5, 7), **RNGS), golden("cin"), ["x"], weights)


@pytest.mark.parametrize(
    ("name", "scaling"), [("interacting", False), ("interacting_scaled", True)]
)
def test_interacting_layer(name, scaling):
    weights = {n: (n, same) for n in ("query", "key", "value")} | {"residual": ("res", same)}
    compare(InteractingLayer(8, 2, 4, scaling, **RNGS), golden(name), ["x"], weights)


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_regulation(tau):
    data = golden(f"edcn_regulation_tau{tau}")
    compare(Regulation(6, tau), data, ["x"], {"gate": ("g", lambda a: a[0, :, 0])})


@pytest.mark.parametrize("kind", ["pointwise_addition", "hadamard_product"])
def test_bridges_without_weights(kind):
    compare(Bridge(10, kind, **RNGS), golden(f"edcn_bridge_{kind}"), ["x", "h"], {})


def test_bridge_by_concatenation():
    weights = {"dense/kernel": ("k", same), "dense/bias": ("b", same)}
    data = golden("edcn_bridge_concatenation")
    compare(Bridge(10, "concatenation", **RNGS), data, ["x", "h"], weights)


def test_bridge_by_attention():
    weights = {
        f"sides/{side}/{layer}/{leaf}": (f"{letter}_{leaf[0]}{k}", same)
        for side, letter in (("cross", "x"), ("deep", "h"))
        for k, layer in enumerate(("hidden", "out"))
        for leaf in ("kernel", "bias")
    }
    data = golden("edcn_bridge_attention_pooling")
    compare(Bridge(10, "attention_pooling", **RNGS), data, ["x", "h"], weights)


def test_field_excitation():
    weights = {"squeeze": ("W_1", same), "excite": ("W_2", same)}
    compare(FieldExcitation(7, 3, **RNGS), golden("fibinet_senet"), ["x"], weights)


@pytest.mark.parametrize("kind", ["all", "each", "interaction"])
def test_bilinear(kind):
    data = golden(f"fibinet_bilinear_{kind}")
    names = [n for n in data if n.startswith("w/")]
    module = Bilinear(5, 8, kind, **RNGS)
    count = len(module.kernel[...])  # "each" has one more in the file, never used
    data |= {
        prefix + "all": np.stack([data[prefix + n[2:]] for n in names[:count]])
        for prefix in ("w/", "g/w/")
    }
    compare(module, data, ["x"], {"kernel": ("all", same)})


def test_bilinear_fusion():
    data = golden("finalmlp_aggregation")
    module = BilinearFusion(8, 6, 2, **RNGS)

    def row(array):  # [width of a block, heads, 1] -> blocks side by side
        return array.transpose(1, 0, 2).reshape(-1, 1)

    data["w/sum"] = data["w/bias"].sum()
    data["g/w/sum"] = data["g/w/bias"].sum() / 2  # of two biases that are added up
    weights = {
        "first/kernel": ("w_1", row),
        "second/kernel": ("w_2", row),
        "both": ("w_12", lambda a: a[..., 0]),
        "bias": ("sum", same),
    }
    compare(module, data, ["latent_1", "latent_2"], weights)


def test_feature_selection():
    """The gates of both streams, seen through the identity in place of the network."""
    data = golden("finalmlp_feature_selection")
    cfg = FinalMLPConfig(4, 1, 4, (), (), first_widths=(3, 2), second_widths=(3, 2), dropout=0.0)
    for k in (1, 2):
        stream = Stream(5, cfg, (3, 2), **RNGS)
        stream.mlp = stream.out = lambda x, **_: x
        stream.context[...] = data[f"w/g{k}_in"]
        stream.gate.kernel[...] = data[f"w/g{k}_k"]
        stream.gate.bias[...] = data[f"w/g{k}_b"]
        x = jnp.asarray(data["x"])
        y = stream(x, x, False, None, None)
        close(y, data["y"][:, 20 * (k - 1) : 20 * k], f"stream {k}")


def test_stream_ends_in_a_bare_layer():
    data = golden("finalmlp_mlp_infer")
    cfg = FinalMLPConfig(4, 1, 4, (), (), first_widths=(12, 9, 6), second_widths=(4, 2))
    stream = Stream(5, cfg, (12, 9, 6), **RNGS)
    stream.gate.kernel[...] = 0.0  # a gate of 2 sigmoid(0) = 1
    for k in range(2):
        block = stream.mlp.layers[f"layer_{k}"]
        block.dense.kernel[...], block.dense.bias[...] = data[f"w/k{k}"], data[f"w/b{k}"]
        _norm(block.norm, [data[f"w/{n}{k}"] for n in ("gamma", "beta", "mm", "mv")])
    stream.out.kernel[...], stream.out.bias[...] = data["w/k2"], data["w/b2"]
    x = jnp.asarray(data["x"])
    close(stream(x, x, False, None, None), data["y"], "y")


# Whole models -----------------------------------------------------------------------------------

ORDER = [*ITEM_FIELDS, *USER_FIELDS]  # of the published baselines


def inputs_of(data):
    """Their embeddings have a bias and a ReLU, which are the tables' business here."""
    rows, weights, start = [], [], 0
    for field in ORDER:
        table = "tag" if field in TAGS or field.startswith("tag_") else field
        kernel = data[f"w/emb/{table}/kernel"]
        index = data[f"idx/{field}"]
        rows.append(np.maximum(kernel[index] + data[f"w/emb/{table}/bias"], 0))
        if "w/lr/kernel" in data:
            weights.append(data["w/lr/kernel"][start + index, 0])
        start += len(kernel)
    rows = jnp.asarray(np.stack(rows, axis=1))
    # All fields as the user's: the order of the published concatenation.
    return RankerInputs(rows, rows[:, :0], jnp.asarray(np.stack(weights, axis=1)), {}, {})


def _norm(norm, arrays):
    for name, array in zip(("scale", "bias", "mean", "var"), arrays, strict=True):
        getattr(norm, name)[...] = array


def _mlp(mlp, data, name="head"):
    for k in range(len(mlp.layers)):
        block = mlp.layers[f"layer_{k}"]
        block.dense.kernel[...] = data[f"w/{name}/dense{k}/kernel"]
        block.dense.bias[...] = data[f"w/{name}/dense{k}/bias"]
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        _norm(block.norm, [data[f"w/{name}/bn{k}/{n}"] for n in names])


def _deep(deep, data):
    _mlp(deep.mlp, data)
    deep.out.kernel[...] = data["w/head/out/kernel"]


def _set_deepfm(model, data):
    _deep(model.deep, data)


def _set_xdeepfm(model, data):
    _deep(model.deep, data)
    for k in range(2):
        model.cin.kernels[f"layer_{k}"][...] = data[f"w/cin/W{k}"][0]
    model.cin_out.kernel[...] = data["w/cin_out/kernel"]


def _set_dcn(model, data):
    _mlp(model.mlp, data)
    model.out.kernel[...] = data["w/out/kernel"]
    for k in range(2):
        layer = model.cross.layers[f"layer_{k}"]
        layer.kernel[...] = data[f"w/cross/W{k}"][:, None]
        layer.bias[...] = data[f"w/cross/b{k}"]


def _set_dcnv2(model, data):
    _mlp(model.mlp, data)
    model.out.kernel[...] = data["w/out/kernel"]
    for k in range(2):
        v, c, u = (data[f"w/cross/{letter}{k}"] for letter in "VCU")
        layer = model.cross.layers[f"layer_{k}"]
        layer.v[...] = v.transpose(1, 0, 2).reshape(v.shape[1], -1)
        layer.c[...] = c.transpose(0, 2, 1)
        layer.u[...] = u.transpose(0, 2, 1).reshape(-1, u.shape[1])
        layer.bias[...] = data[f"w/cross/bias{k}"][:, 0]
    gates = [data[f"w/cross/gate{expert}"] for expert in range(4)]
    model.cross.gate[...] = np.concatenate(gates, axis=1)


def _set_difm(model, data):
    _mlp(model.mlp, data)
    for ours, theirs in (
        ("query", "query"),
        ("key", "key"),
        ("value", "value"),
        ("residual", "res"),
    ):
        getattr(model.attention, ours)[...] = data[f"w/att/{theirs}"]
    model.vector_wise.kernel[...] = data["w/m_vec/kernel"]
    model.bit_wise.kernel[...] = data["w/m_bit/kernel"]


def _set_fibinet(model, data):
    _deep(model.deep, data)
    model.excitation.squeeze[...] = data["w/senet/W_1"]
    model.excitation.excite[...] = data["w/senet/W_2"]
    for ours, theirs in (("excited_pairs", "bilinear_se"), ("pairs", "bilinear")):
        kernels = [data[f"w/{theirs}/W_{k}"] for k in range(22)]
        getattr(model, ours).kernel[...] = np.stack(kernels)


SHAPE = {"user_fields": 23, "item_fields": 0, "user_dense": (), "modalities": ()}
MODELS = {
    "deepfm": (DeepFMConfig(**SHAPE), _set_deepfm),
    "xdeepfm": (XDeepFMConfig(**SHAPE), _set_xdeepfm),
    "dcn": (DCNConfig(**SHAPE), _set_dcn),
    "dcnv2": (DCNV2Config(**SHAPE), _set_dcnv2),
    "difm": (DIFMConfig(**SHAPE, weighted_linear=False), _set_difm),
    "fibinet": (FiBiNETConfig(**SHAPE), _set_fibinet),
}


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_give_the_published_logits(name):
    data = golden(f"e2e_{name}")
    cfg, fill = MODELS[name]
    inputs = inputs_of(data)
    cfg = dataclasses.replace(cfg, embedding_width=inputs.user_embeddings.shape[-1])
    model = cfg.create(nnx.Rngs(0))
    fill(model, data)
    found = jax.jit(lambda inputs: model(inputs))(inputs)
    close(found.logit, data["logit"][:, 0], "logit")
    close(jax.nn.sigmoid(found.logit), data["p"][:, 0], "probability")
    assert found.weights.shape == (8, 0)
