"""The sizes of the paper: full-width ResNet101 at 512 px, DistilBERT's shape, tables of a site.

    python -m umair_jax.train --config=configs/paper.py

Made for an accelerator. Content vectors are 2,048-d (1,024-d in the authors' own backbone, whose
fourth of six stages is read), style vectors 256-d, text vectors 512-d. Field sizes, bucket edges,
dropout, UMCM attention, Adam 1e-3, batch 128 and one epoch are the published ones; the interest
vectors are those of the text alone. Without weights of your own (`config.extract.image_weights`)
the encoders are random.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import base
from umair_jax.models.style import StyleConfig


def get_config(arg: str = "") -> ConfigDict:
    """base.py with the published sizes and options."""
    config = base.get_config(arg)
    with config.unlocked():
        config.schema.sizes = {
            "illust_id": 1_000_000,
            "artist_id": 10_000,
            "item_tag": 8_000,
            "user_tag": 8_000,
            "user_id": 100_000,
            "username": 1_000,
        }
        config.schema.boundaries = {
            "total_view": (100, 250, 500, 1000, 5000, 10000, 40000, 60000, 100000),
            "total_bookmarks": (100, 250, 500, 1000, 1500, 2000, 3000, 6000, 10000),
        }
        config.schema.bookmark_rate = ()
        config.schema.interest_vectors = ("text",)
        config.features.log_style = False
        config.features.standardise = False
        config.extract.image.update(
            {
                "base_width": 64,
                "image_size": 512,
                "style": dataclasses.asdict(StyleConfig()),
                "pre_activation": True,
                "whiten_content": 0,
                "whiten_style": 0,
            }
        )
        config.extract.image_weights = ""
        config.extract.text_weights = ""
        config.extract.text.update(
            {"layers": 6, "width": 768, "heads": 12, "ffn": 3072, "max_positions": 512}
        )
        config.model.tower_widths = (128, 64)
        config.model.dropout = 0.5
        config.model.umcm = "attention"
        config.model.attention_dropout = 0.5
        config.train.batch_size = 128
        config.train.epochs = 1.0
        config.optim.name = "adam"
        config.optim.weight_decay = 0.0
        config.optim.learning_rate = 1e-3
        config.optim.schedule = "constant"
        config.optim.warmup_fraction = 0.0
        config.optim.ema_decay = 0.0
        config.tables.learning_rate = 0.05
    return config
