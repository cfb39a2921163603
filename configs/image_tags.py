"""The image encoder of the package: trained on the tags of the built-in drawings.

    python -m umair_jax.train --config=configs/image_tags.py

About 27 minutes on two CPU cores (AMD EPYC, jax 0.10.2), 64 drawings/s beside other work, 3.4 GiB.
Tags of held-out drawings: mAP 0.480, 0.463 (seeds 0 and 1) and 0.508 (seed 0 again, where sums in
another order make other weights), by chance 0.021. What the vectors carry is in the model card,
umair_jax/pretrained/image_encoder.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config; takes no argument after the file's name."""
    shared = base.get_config(arg)
    config = ConfigDict()
    config.task = "image_tags"
    config.seed = 0  # of initial weights, augmentation and the order of drawings
    config.data = shared.data

    config.labels = ConfigDict()
    config.labels.min_count = 5
    config.labels.exclude = ()
    config.labels.fractions = (0.9, 0.05, 0.05)
    config.labels.split_seed = 0
    config.labels.popularity = ConfigDict()

    config.model = ConfigDict()
    # What base.py extracts with, on smaller pictures; only what leaves is whitened.
    config.model.image = shared.extract.image.to_dict() | {
        "image_size": 64,
        "whiten_content": 0,
        "whiten_style": 0,
    }
    config.model.dropout = 0.0

    config.objective = ConfigDict()
    config.objective.tags = 0.1
    config.objective.label_loss = {
        "kind": "bce",
        "gamma": 2.0,
        "gamma_positive": 0.0,
        "gamma_negative": 4.0,
        "margin": 0.05,
    }
    config.objective.popularity = 0.0
    config.objective.content = 1.0
    config.objective.content_temperature = 0.1
    config.objective.style = 1.0
    config.objective.style_temperature = 0.1
    config.objective.style_redundancy = 0.02

    config.augment = ConfigDict()
    config.augment.flip = 0.5
    config.augment.rotate_degrees = 20.0
    config.augment.scale = (0.7, 1.2)
    config.augment.shift = 0.1
    config.augment.background = 0.2
    config.augment.repaint = 1.0

    config.train = shared.train
    config.optim = shared.optim
    config.mesh = shared.mesh
    config.hosts = shared.hosts
    config.checkpoint = shared.checkpoint
    config.log = shared.log
    with config.unlocked():
        config.train.batch_size = 64
        config.train.epochs = 40.0
        config.train.log_every_steps = 20
        config.train.eval_every_steps = 0
        config.train.checkpoint_every_steps = 100
        config.optim.learning_rate = 3e-3
        config.optim.warmup_fraction = 0.1
        config.optim.weight_decay = 0.05
        config.optim.ema_decay = 0.99
        config.checkpoint.best_metric = ""
        config.checkpoint.restore_best = False

    config.eval = ConfigDict()
    config.eval.batch_size = 64
    config.eval.threshold = 0.5
    config.eval.cutoffs = (1, 5)

    config.export = ConfigDict()
    config.export.dtype = "float16"
    # A Gram head gives the first layers their objective; a finer one reads them.
    config.export.image_size = 120
    config.export.style = shared.extract.image.style.to_dict() | {
        "stages": (0,),
        "stride": 2,
        "kernel": "gaussian",
        "bandwidths": (0.12, 0.6),
        "compress": False,
    }
    config.export.whiten_content = 192
    config.export.whiten_style = 256
    config.export.whiten_shrinkage = 0.01
    return config.lock()
