"""A baseline on the batches, optimiser and loop of the main job.

    python -m umair_jax.train --config=configs/baselines.py:deepfm
    python -m umair_jax.train --config=configs/baselines.py:deepfm,sparse
    python -m umair_jax.train --config=configs/baselines.py:deepfm,on=movielens:temporal

The argument names the model: lr, fm, wide_deep, deepfm, xdeepfm, dcn, dcnv2, autoint, difm, edcn,
fibinet or finalmlp; popularity, which is logistic regression on how often an item was seen and
bookmarked before; or item_knn, the similarity to what the user bookmarked. With `sparse` a model
gets ids, tags and counts alone, as the baselines of the published code did; without, it gets the
vectors of the main job as well, as plain dense inputs. `on` names the config whose data, vectors
and training it takes in place of configs/base.py's.
"""

import dataclasses
import importlib

from ml_collections import ConfigDict

from umair_jax.data.fields import Side
from umair_jax.data.ranking import COUNTED
from umair_jax.data.schema import Schema
from umair_jax.models.baselines import BASELINES
from umair_jax.models.inputs import InputShapes

POPULARITY, ITEM_KNN, SPARSE = "popularity", "item_knn", "sparse"
NAMES = (POPULARITY, *BASELINES)
# Sizes that differ from the published ones: those ask for far more examples, or for minutes a run.
SIZES = {
    "fm": {"vector_fields": 4},
    "xdeepfm": {"cin_widths": (16, 16)},
    "difm": {"heads": 2},
    "edcn": {"vector_fields": 4},
    "finalmlp": {"first_widths": (256, 128, 64), "second_widths": (64, 32, 32)},
}


def get_config(arg: str = "deepfm") -> ConfigDict:
    """The config that the argument builds on, with the ranker that it names."""
    name, config, rest = parse("configs/baselines.py", arg, NAMES)
    if rest not in ([], [SPARSE]) or (rest and name in (POPULARITY, ITEM_KNN)):
        raise ValueError(
            f"configs/baselines.py: got {arg!r}; expected a name, ,{SPARSE} where a model can do "
            "without vectors, and ,on=CONFIG"
        )
    with config.unlocked():
        rate = config.model.dropout
        config.model = _model("lr" if name == POPULARITY else name)
        if "dropout" in config.model:
            config.model.dropout = rate  # as the main job
        if rest or name == POPULARITY:
            without_vectors(config, ("content", "style", "text"))
        if name == POPULARITY:
            fields = Schema.paper().sparse()
            config.schema.drop += tuple(f.name for f in fields if f.column not in COUNTED)
        if name == ITEM_KNN:
            config.features.history = 20
            config.schema.interest_vectors = ()
    return config


def parse(file: str, arg: str, names: tuple[str, ...]) -> tuple[str, ConfigDict, list[str]]:
    """The name, the config to build on and the other words of "NAME,WORD,on=CONFIG:ARGUMENT".

    Raises:
        ValueError: An unknown name or config.
    """
    name, *words = arg.split(",")
    if name not in names:
        raise ValueError(
            f"{file}: got the argument {arg!r}; expected one of {', '.join(names)} first"
        )
    on = [word.removeprefix("on=") for word in words if word.startswith("on=")] or ["base"]
    module, _, inner = on[-1].partition(":")
    try:
        found = importlib.import_module(f"configs.{module}").get_config(inner)
    except ModuleNotFoundError as error:
        raise ValueError(f"{file}: got on={on[-1]!r}; expected a file of configs/") from error
    return name, found, [word for word in words if not word.startswith("on=")]


def without_vectors(config: ConfigDict, kinds: tuple[str, ...]) -> None:
    """Takes kinds of vectors (content, style, text) from the items and from what users like."""
    dense = Schema.paper().dense(Side.ITEM)
    config.schema.drop = (
        *config.schema.drop,
        *(field.name for field in dense if field.column in kinds),
    )
    left = tuple(kind for kind in config.schema.interest_vectors if kind not in kinds)
    config.schema.interest_vectors = left


def _model(name: str) -> ConfigDict:
    """The options of a baseline, short of those that follow from the schema."""
    kind = BASELINES[name]
    derived = {field.name for field in dataclasses.fields(InputShapes)}
    model = ConfigDict({"name": name})
    for field in dataclasses.fields(kind):
        if field.name not in derived:
            model[field.name] = SIZES.get(name, {}).get(field.name, field.default)
    return model
