"""Candidates: two towers that find, among all drawings, those that a user might bookmark.

python -m umair_jax.train --config=configs/retrieval.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config; takes no argument after the file's name."""
    if arg:
        raise ValueError(f"configs/retrieval.py: got the argument {arg!r}; expected none")
    config = base.get_config()
    with config.unlocked():
        config.task = "retrieval"
        config.model = ConfigDict()
        config.model.tower_widths = (256, 128)
        config.model.modality_width = 64
        config.model.width = 64
        config.model.normalise = True
        config.model.temperature = 0.1
        config.model.learn_temperature = False
        config.model.dropout = 0.0
        config.model.dtype = "float32"

        config.objective = ConfigDict()
        config.objective.correction = 1.0

        config.export = ConfigDict()
        config.export.index = "none"

        config.train.eval_every_steps = 100
        config.checkpoint.best_metric = "valid/recall_at_100"
    return config
