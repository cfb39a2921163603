"""The main job in seconds: every component at a toy size, to see that an installation works.

    python -m umair_jax.train --config=configs/smoke.py

Two CPU cores: half a minute. Its metrics mean nothing.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """base.py with few drawings, tiny encoders and few steps."""
    config = base.get_config(arg)
    with config.unlocked():
        config.data.limit = 300
        config.extract.image.update(
            {
                "base_width": 4,
                "blocks": (1, 1, 1, 1),
                "image_size": 64,
                "whiten_content": 32,
                "whiten_style": 16,
            }
        )
        config.extract.image_weights = ""
        config.extract.text_weights = ""
        config.extract.text.update({"layers": 1, "width": 32, "heads": 2, "ffn": 32, "output": 64})
        config.extract.calibration_images = 64
        config.train.epochs = 0.0  # steps instead
        config.train.steps = 60
        config.train.batch_size = 256
        config.train.log_every_steps = 20
        config.train.eval_every_steps = 30
        config.train.checkpoint_every_steps = 30
    return config
