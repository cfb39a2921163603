"""The published ranker, weights in, logits out: every step of it, on examples evaluated alone."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models.ranker import Ranker, RankerConfig, RankerInputs
from umair_jax.models.tables import lookup

GOLDEN = Path(__file__).parent / "golden"
TAGS = [f"{term}_term_interest_tag_{i}" for term in ("long", "short") for i in range(4)]
USER_FIELDS = ["user_id", "username", *TAGS]
ITEM_FIELDS = [
    *("restrict", "sanity_level", "x_restrict", "tag_0", "tag_1", "tag_2", "tag_3"),
    *("total_bookmarks", "total_view", "width", "height", "illust_id", "artist_id"),
]
USER_DENSE = ("long_term_interest_tags_feature", "short_term_interest_tags_feature")
MODALITIES = {
    "content": ("img_semantics_feature", "img_semantics"),
    "style": ("img_styles_feature", "img_styles"),
    "text": ("tag_semantics_feature", "tag_semantics"),
}
VARIANTS = {
    "attention": {"umcm": "attention"},
    "senet": {"umcm": "senet"},
    "mmoe_3atten": {"umcm": "mixture", "umcm_experts": ("attention",) * 3},
    "no_dcn": {"umcm": "attention", "cross": "none"},
}

pytestmark = pytest.mark.parity


def load(variant):
    """The variant's numbers; what its file leaves out is as in the first one."""
    data = {}
    for name in ("attention", variant):
        with np.load(GOLDEN / f"e2e_umair_{name}.npz", allow_pickle=False) as file:
            if name == variant:
                data = {key: value for key, value in data.items() if "single/" not in key}
            data.update({key: file[key] for key in file.files})
    return data


def table_of(field):
    if field in TAGS:
        return "user_tag"
    return "item_tag" if field.startswith("tag_") else field


def published_inputs(data, prefix=""):
    """Inputs of the ranker, looked up in stacked tables as in our layout."""
    fields = USER_FIELDS + ITEM_FIELDS
    blocks, embedding, wide = {}, [np.zeros((1, 8), np.float32)], [np.zeros((1, 1), np.float32)]
    embedding_rows, wide_rows, wide_start = [], [], 1
    for field in fields:
        kernel = data[f"w/emb/{table_of(field)}/kernel"]
        if table_of(field) not in blocks:
            blocks[table_of(field)] = sum(len(part) for part in embedding)
            embedding.append(kernel)
        index = data[f"{prefix}idx/{field}"]
        embedding_rows.append(blocks[table_of(field)] + index)
        wide_rows.append(wide_start + index)
        wide_start += len(kernel)
    wide.append(data["w/lr/kernel"])
    assert wide_start == 1 + len(data["w/lr/kernel"])
    table = jnp.asarray(np.concatenate(embedding))
    rows = lookup(table, jnp.asarray(np.stack(embedding_rows, axis=1)))
    weights = lookup(jnp.asarray(np.concatenate(wide)), jnp.asarray(np.stack(wide_rows, axis=1)))
    return RankerInputs(
        user_embeddings=rows[:, : len(USER_FIELDS)],
        item_embeddings=rows[:, len(USER_FIELDS) :],
        wide=weights[..., 0],
        user_dense={name: jnp.asarray(data[f"{prefix}x/{name}"]) for name in USER_DENSE},
        modalities={
            ours: jnp.asarray(data[f"{prefix}x/{theirs}"])
            for ours, (theirs, _) in MODALITIES.items()
        },
    )


def published_ranker(variant, data, dropout=0.5):
    cfg = RankerConfig(
        user_dense=tuple((name, 512) for name in USER_DENSE),
        modalities=(("content", 1024), ("style", 256), ("text", 512)),
        dropout=dropout,
        attention_dropout=dropout,
        **VARIANTS[variant],
    )
    # Every array is set below; NaN until then.
    graph, state = nnx.split(nnx.eval_shape(lambda: Ranker(cfg, rngs=nnx.Rngs(0))))
    empty = jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, np.nan, x.dtype)), state)
    ranker = nnx.merge(graph, empty)

    def dense(layer, name):
        layer.kernel[...] = data[f"w/{name}/kernel"]
        if layer.bias is not None:
            layer.bias[...] = data[f"w/{name}/bias"]

    def mlp(module, name):
        for index in range(len(module.layers)):
            block = module.layers[f"layer_{index}"]
            dense(block.dense, f"{name}/dense{index}")
            norm = f"w/{name}/bn{index}/"
            block.norm.scale[...] = data[norm + "gamma"]
            block.norm.bias[...] = data[norm + "beta"]
            block.norm.mean[...] = data[norm + "moving_mean"]
            block.norm.var[...] = data[norm + "moving_variance"]

    mlp(ranker.user_tower, "user_mlp")
    mlp(ranker.meta_tower, "item_mlp")
    mlp(ranker.head, "head")
    dense(ranker.out, "head/out")
    for ours, (_, theirs) in MODALITIES.items():
        dense(ranker.projections[ours], f"modal/{theirs}")
    if variant == "senet":
        dense(ranker.umcm.experts["expert_0"].squeeze, "senet0/dense0")
        dense(ranker.umcm.experts["expert_0"].excite, "senet0/dense1")
    if cfg.cross == "mixture":
        for index in range(2):
            v, c, u = (data[f"w/cross/{letter}{index}"] for letter in "VCU")
            layer = ranker.cross.layers[f"layer_{index}"]
            layer.v[...] = v.transpose(1, 0, 2).reshape(128, 128)
            layer.c[...] = c.transpose(0, 2, 1)
            layer.u[...] = u.transpose(0, 2, 1).reshape(128, 128)
            layer.bias[...] = data[f"w/cross/bias{index}"][:, 0]
        gates = [data[f"w/cross/gate{expert}"] for expert in range(4)]
        ranker.cross.gate[...] = np.concatenate(gates, axis=1)
    return ranker


def close(ours, theirs, name):
    scale = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_step_matches_the_published_code(variant):
    data = load(variant)
    ranker = published_ranker(variant, data)
    inputs = published_inputs(data)
    user = ranker.encode_user(inputs.user_embeddings, inputs.user_dense)
    close(user, data["single/user_embedding"], "user vector")
    items = ranker.encode_items(inputs.item_embeddings, inputs.modalities)
    close(items, data["single/item_modal_stack"], "modalities")
    fused, _ = ranker.fuse(user, items)
    z = jnp.concatenate([fused, user], axis=1)
    if "single/z" in data:
        close(z, data["single/z"], "z")
        close(ranker.cross(z), data["single/cross"], "cross")
    close(ranker.score(fused, user), data["single/dnn_logit"][:, 0], "deep logit")
    sparse = ranker.shallow_logit(inputs)
    close(sparse, data["single/lr_logit"][:, 0], "wide logit")
    logit, weights = jax.jit(lambda inputs: ranker(inputs))(inputs)
    close(logit, data["single/logit"][:, 0], "logit")
    close(jax.nn.sigmoid(logit), data["single/p"][:, 0], "probability")
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)


def test_a_training_step_has_the_published_loss_and_statistics():
    data = load("senet")
    ranker = published_ranker("senet", data, dropout=0.0)
    logit, ranker = jax.jit(lambda ranker, x: (ranker(x, train=True).logit, ranker))(
        ranker, published_inputs(data, "train1/")
    )
    label = data["train1/y"]
    loss = (jax.nn.softplus(logit) - label * logit).mean()
    expected = data["train1/loss"] - data["train1/reg_before_step"]
    np.testing.assert_allclose(loss, expected, atol=1e-5)
    for name, tower in (
        ("user_mlp", ranker.user_tower),
        ("item_mlp", ranker.meta_tower),
        ("head", ranker.head),
    ):
        for index in range(len(tower.layers)):
            norm = tower.layers[f"layer_{index}"].norm
            close(norm.mean[...], data[f"after1/{name}/bn{index}/moving_mean"], name)
            close(norm.var[...], data[f"after1/{name}/bn{index}/moving_variance"], name)
