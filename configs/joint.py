"""End to end: the main job, and both encoders learn from the bookmarks.

    python -m umair_jax.train --config=configs/joint.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """base.py with encoders that are trained; takes no argument after the file's name."""
    config = base.get_config(arg)
    with config.unlocked():
        config.task = "joint"
        config.joint = ConfigDict()
        config.joint.batch_norm = "frozen"
        config.joint.encode_batch = 64
        config.export = ConfigDict()
        config.export.dtype = "float32"

        # An update encodes as many pictures as its batch has items: about as many as examples.
        config.extract.image.image_size = 64
        config.train.batch_size = 64
        config.train.epochs = 0.0  # steps instead
        config.train.steps = 300
        config.train.log_every_steps = 20
        config.train.eval_every_steps = 100
        config.train.checkpoint_every_steps = 100

        # The ranker starts from nothing: at its rate the first updates would undo what trained
        # encoders know, and random ones with the statistics of the start frozen would explode.
        config.optim.rates = (("^image/", 0.1), ("^text/", 0.1))
        # With frozen statistics no BatchNorm makes up for a kernel that shrinks.
        config.optim.decay_mask = r"^ranker/(?!.*(bias|scale)).*$"
        config.optim.clip_norm = 1.0
        config.optim.ema_decay = 0.99
    return config.lock()
