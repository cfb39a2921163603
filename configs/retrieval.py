"""Candidates: two towers that find, among all drawings, those that a user might bookmark.

    python -m umair_jax.train --config=configs/retrieval.py

Made for two CPU cores, like base.py. Simulated bookmarks of the test part, each a question to all
2,743 drawings: recall at 10 0.2162, at 100 0.5629, at 500 0.9148 (mean of the seeds 0, 1, 2). A
list of what was bookmarked most in the seven days before has 0.0877, 0.3714 and 0.7872, all-time
popularity 0.0074, 0.0403 and 0.1864. docs/serving.md has the whole table.
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
        # Vectors of items are made now and then: counts in them would be old when they are read.
        # Most drawings that are bookmarked tomorrow are new: their ids say nothing.
        config.schema.drop = ("total_view", "total_bookmarks", "bookmark_rate", "illust_id")

        config.model = ConfigDict()
        config.model.tower_widths = (256, 128)
        config.model.modality_width = 64
        config.model.width = 64
        config.model.normalise = True
        config.model.temperature = 0.2
        config.model.learn_temperature = False
        config.model.freshness = True
        config.model.dropout = 0.0
        config.model.dtype = "float32"

        config.objective = ConfigDict()
        config.objective.correction = 1.0

        config.export = ConfigDict()
        config.export.index = "none"

        config.train.epochs = 4.0
        config.train.eval_every_steps = 100
        config.optim.weight_decay = 0.1
        config.tables.learning_rate = 0.02
        config.checkpoint.best_metric = "valid/recall_at_100"
    return config
