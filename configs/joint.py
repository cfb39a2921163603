"""End to end: the main job, and both encoders learn from the bookmarks.

    python -m umair_jax.train --config=configs/joint.py

300 updates, a tenth of an epoch, on the built-in drawings (simulated bookmarks, seed 0) at 64
pixels. From random encoders (--config.extract.image_weights= --config.extract.text_weights=) the
log loss of the training batches falls from 0.667 (updates 1 to 20) to 0.583 (281 to 300), and the
validation AUC after 100, 200 and 300 updates is 0.6048, 0.6446 and 0.6562. Test AUC and log loss,
beside those of the same updates with the encoders left as they are (configs/base.py with
--config.extract.image.image_size=64 --config.train.batch_size=64 --config.train.epochs=0
--config.train.steps=300 --config.optim.ema_decay=0.99 --config.optim.clip_norm=1):

    random encoders         0.6479, 0.5879    as they are 0.6297, 0.5924
    those of the package    0.6386, 0.5891    as they are 0.6313, 0.5930
        --config.seed=1     0.6113, 0.5995                0.6404, 0.5883
        --config.seed=2     0.6214, 0.5957                0.6413, 0.5880

So short a training does not pay: see docs/encoders.md.
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

        # The ranker starts from nothing, and whitening enlarges whatever moves before it: a tenth
        # of the ranker's rate is too much, see docs/encoders.md.
        config.optim.rates = (("^image/", 0.01), ("^text/", 0.01))
        # With frozen statistics no BatchNorm makes up for a kernel that shrinks.
        config.optim.decay_mask = r"^ranker/(?!.*(bias|scale)).*$"
        config.optim.clip_norm = 1.0
        config.optim.ema_decay = 0.99
    return config.lock()
