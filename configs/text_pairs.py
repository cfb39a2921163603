"""The text encoder: trained on pairs of texts, from scratch or from weights that are there.

    python -m umair_jax.train --config=configs/text_pairs.py

trains the encoder of the package, from random weights on the built-in pairs: about 25 minutes on
two CPU cores (AMD EPYC, jax 0.10.2), 580 pairs/s, some of it beside other work, 2.3 GiB. Partners
of held-out texts among the ten nearest: 0.641 multilingual, 0.352 relation, 0.426 explanation (one
seed). The model card is umair_jax/pretrained/text_encoder.md.

    python -m umair_jax.train --config=configs/text_pairs.py:FOLDER

trains a text encoder further, with AdamW at 2e-5 for one epoch: one that an earlier run left, that
umair_jax.convert made, or of sentence-transformers.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import base
from umair_jax.encoding import text_model


def get_config(arg: str = "") -> ConfigDict:
    """The config.

    Args:
        arg: A trained text encoder, which training starts from: a folder of sentence-transformers,
            one that `convert` or an earlier training left, or "builtin".
    """
    shared = base.get_config()
    config = ConfigDict()
    config.task = "text_pairs"
    config.seed = 0  # of initial weights, dropout and the order of pairs
    config.data = shared.data

    config.pairs = ConfigDict()
    config.pairs.path = "builtin"
    config.pairs.catalogue = ("title_tags", "tag_tags", "artist_tags")
    config.pairs.catalogue_pairs = 10_000
    config.pairs.max_characters = 300
    config.pairs.max_bad_share = 0.05
    config.pairs.fractions = (0.9, 0.05, 0.05)
    config.pairs.max_mentions = 20
    config.pairs.split_seed = 0
    config.pairs.mix = {"multilingual": 1.0, "relation": 1.0, "explanation": 1.0}

    config.words = ConfigDict()
    config.words.vocabulary_size = 12_000
    config.words.max_tokens = 64
    config.words.tokenizer = ""
    config.words.weights = ""

    config.model = ConfigDict()
    config.model.layers = 1
    config.model.width = 192
    config.model.heads = 6
    config.model.ffn = 768
    config.model.max_positions = 64
    config.model.position_offset = 0
    config.model.relative_buckets = 0
    config.model.token_types = 0
    config.model.epsilon = 1e-12
    config.model.pooling = "mean"
    config.model.output = 512
    config.model.activation = "tanh"
    config.model.normalise = False
    config.model.dropout = 0.1
    config.model.initial_std = 0.02
    config.model.position_std = 0.002
    config.model.dtype = "float32"

    config.objective = ConfigDict()
    config.objective.ranking = {"scale": 20.0, "symmetric": True}
    config.objective.parts = 1

    config.train = shared.train
    config.optim = shared.optim
    config.mesh = shared.mesh
    config.hosts = shared.hosts
    config.checkpoint = shared.checkpoint
    config.log = shared.log
    with config.unlocked():
        config.train.batch_size = 512
        config.train.epochs = 6.0
        config.train.log_every_steps = 20
        config.train.eval_every_steps = 250
        config.train.checkpoint_every_steps = 500
        config.optim.learning_rate = 2e-3
        config.optim.schedule = "linear"
        config.optim.warmup_fraction = 0.1
        config.optim.weight_decay = 0.01
        config.optim.ema_decay = 0.0
        config.checkpoint.best_metric = ""
        config.checkpoint.restore_best = False

    config.eval = ConfigDict()
    config.eval.batch_size = 512

    config.export = ConfigDict()
    config.export.dtype = "float16"
    if arg:
        _start_from(arg, config)
    return config.lock()


def _start_from(place: str, config: ConfigDict) -> None:
    """The usual values for weights that are trained already: Reimers and Gurevych 2019."""
    found = text_model.read(place)
    shape = dataclasses.asdict(found.config)
    del shape["vocabulary"]
    config.model = ConfigDict(shape)
    config.words.weights = place
    config.words.max_tokens = min(64, found.max_tokens)
    config.optim.learning_rate = 2e-5
    config.train.batch_size = 128
    config.train.epochs = 1.0
    config.train.eval_every_steps = 0
    config.train.checkpoint_every_steps = 200
