"""UMAIR-FPS with one thing changed.

    python -m umair_jax.train --config=configs/ablations.py:without_style
    python -m umair_jax.train --config=configs/ablations.py:modalities=content+text
    python -m umair_jax.train --config=configs/ablations.py:umcm_static,on=movielens:temporal

The argument is one of GROUPS' names below, or any subset of the modalities meta, content, style and
text with a plus between; `on` names the config that is changed, configs/base.py without. What is
left out of the items is left out of the users' interests too: without meta there are no ids, counts
and tags of items anywhere, in the wide part neither. configs/ablation_table.py makes a table of
each group.
"""

import itertools
from typing import Any

from ml_collections import ConfigDict

from configs.baselines import parse, without_vectors
from umair_jax import settings
from umair_jax.data.fields import LONG_TAGS, SHORT_TAGS, Side
from umair_jax.data.schema_config import SchemaConfig

MODALITIES = ("meta", "content", "style", "text")
ALL = "modalities="
SUBSETS = tuple(
    ALL + "+".join(subset)
    for size in range(1, len(MODALITIES) + 1)
    for subset in itertools.combinations(MODALITIES, size)
)
WITHOUT = {f"without_{name}": name for name in MODALITIES}
UMCM = {
    "umcm_attention": {"umcm": "attention"},
    "umcm_senet": {"umcm": "senet"},
    "umcm_att_att_att": {"umcm": "mixture", "umcm_experts": ("attention",) * 3},
    "umcm_se_se_se": {"umcm": "mixture", "umcm_experts": ("senet",) * 3},
    "umcm_se_att": {"umcm": "mixture", "umcm_experts": ("senet", "attention")},
    "umcm_static": {"umcm": "static"},
    "umcm_none": {"umcm": "none"},
}
CROSS = {
    **{f"cross_{kind}": {"cross": kind} for kind in ("mixture", "low_rank", "matrix", "vector")},
    "cross_none": {"cross": "none"},
    # As many parameters as the two layers of the mixture have.
    "plain_mlp": {"cross": "none", "head_widths": (425, 64, 32, 16)},
}
PARTS = {
    "without_wide": {"wide": False},
    "with_fm": {"fm": "embeddings"},
    "with_fm_of_vectors": {"fm": "vectors"},
    "with_residual": {"residual": True},
    "with_modality_norm": {"modality_norm": True},
}
# The first is the paper's reading: row maxima of the first stage's Gram matrices.
STYLES = {
    "style_max": {"pool": "max"},
    "style_mean": {"pool": "mean"},
    "style_triangle": {"pool": "triangle"},
    "style_max_stage_2": {"pool": "max", "stages": (2,)},
    "style_max_stages_1_2": {"pool": "max", "stages": (1, 2)},
    "style_max_last_block": {"pool": "max", "blocks": 1},
    "style_max_normalised": {"pool": "max", "channel_norm": "channel"},
}
GROUPS: dict[str, tuple[str, ...]] = {
    # All four is the config as it is, all but one what without_... says.
    "modalities": SUBSETS[:-1],
    "umcm": tuple(UMCM),
    "cross": tuple(CROSS),
    "parts": tuple(PARTS),
    "styles": tuple(STYLES),
}
NAMES = (*WITHOUT, SUBSETS[-1], *(name for names in GROUPS.values() for name in names))


def get_config(arg: str = "without_style") -> ConfigDict:
    """The config that the argument builds on, changed as its name says."""
    name, config, rest = parse("configs/ablations.py", arg, NAMES)
    if rest:
        raise ValueError(f"configs/ablations.py: got {rest} in {arg!r}; expected nothing there")
    with config.unlocked():
        if name in WITHOUT:
            _keep(config, tuple(m for m in MODALITIES if m != WITHOUT[name]))
        elif name in SUBSETS:
            _keep(config, tuple(name.removeprefix(ALL).split("+")))
        elif name in STYLES:
            _update(config.extract.image.style, STYLES[name])
        else:
            _update(config.model, {**UMCM, **CROSS, **PARTS}[name])
    return config


def _keep(config: ConfigDict, kept: tuple[str, ...]) -> None:
    without_vectors(config, tuple(m for m in MODALITIES[1:] if m not in kept))
    if kept == ("meta",) and config.model.fm == "vectors":
        config.model.fm = "embeddings"
    if "meta" not in kept:
        config.model.meta = False
        schema = settings.build(SchemaConfig, config.schema.to_dict(), "config.schema").schema()
        fields = [
            *schema.sparse(Side.ITEM),
            *(f for f in schema.sparse(Side.USER) if f.column in (LONG_TAGS, SHORT_TAGS)),
        ]
        config.schema.drop += tuple(field.name for field in fields)


def _update(section: ConfigDict, values: dict[str, Any]) -> None:
    for name, value in values.items():
        section[name] = value
