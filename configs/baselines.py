"""A baseline on the batches, optimiser and loop of the main job.

    python -m umair_jax.train --config=configs/baselines.py:deepfm
    python -m umair_jax.train --config=configs/baselines.py:deepfm,sparse

The argument names the model: lr, fm, wide_deep, deepfm, xdeepfm, dcn, dcnv2, autoint, difm, edcn,
fibinet or finalmlp; popularity, which is logistic regression on how often an item was seen and
bookmarked before; or item_knn, the similarity to what the user bookmarked. With `,sparse` a model
gets ids, tags and counts alone, as the baselines of the published code did; without, it gets the
vectors of the main job as well, as plain dense inputs.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import base
from umair_jax.data.fields import Kind, Side
from umair_jax.data.ranking import COUNTED
from umair_jax.data.schema import Schema
from umair_jax.models.baselines import BASELINES
from umair_jax.models.inputs import InputShapes

POPULARITY, ITEM_KNN = "popularity", "item_knn"
NAMES = (POPULARITY, *BASELINES)
SPARSE = "sparse"
# Sizes that differ from the published ones: those ask for far more examples, or for minutes a run.
SIZES = {
    "fm": {"vector_fields": 4},
    "xdeepfm": {"cin_widths": (16, 16)},
    "edcn": {"vector_fields": 4},
    "finalmlp": {"first_widths": (256, 128, 64), "second_widths": (64, 32, 32)},
}


def get_config(arg: str = "deepfm") -> ConfigDict:
    """base.py with the ranker that the argument names."""
    name, *rest = arg.split(",")
    if name not in NAMES or rest not in ([], [SPARSE]):
        raise ValueError(
            f"configs/baselines.py: got the argument {arg!r}; expected one of {', '.join(NAMES)}, "
            f"or one of them followed by ,{SPARSE}"
        )
    if rest and name in (POPULARITY, ITEM_KNN):
        raise ValueError(
            f"configs/baselines.py: got {arg!r}; expected {name} alone: its inputs are fixed"
        )
    config = base.get_config()
    with config.unlocked():
        config.model = _model("lr" if name == POPULARITY else name)
        if rest or name == POPULARITY:
            _without_vectors(config)
        if name == POPULARITY:
            fields = (*Schema.paper().sparse(),)
            config.schema.drop += tuple(f.name for f in fields if f.column not in COUNTED)
        if name == ITEM_KNN:
            config.features.history = 20
            config.schema.interest_vectors = ()
    return config


def _model(name: str) -> ConfigDict:
    """The options of a baseline, short of those that follow from the schema."""
    kind = BASELINES[name]
    derived = {field.name for field in dataclasses.fields(InputShapes)}
    model = ConfigDict({"name": name})
    for field in dataclasses.fields(kind):
        if field.name not in derived:
            model[field.name] = SIZES.get(name, {}).get(field.name, field.default)
    if "dropout" in model:
        model.dropout = 0.1  # as the main job
    return model


def _without_vectors(config: ConfigDict) -> None:
    dense = [f.name for f in Schema.paper().dense(Side.ITEM) if f.kind is Kind.DENSE]
    config.schema.interest_vectors = ()
    config.schema.drop = tuple(dense)
