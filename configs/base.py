"""The main job: UMAIR-FPS on the built-in drawings.

    python -m umair_jax.train --config=configs/base.py

Two CPU cores: 116 s the first time, 74 s with the data set and the feature bank there, 1.8 GiB.
Test AUC 0.8212 (mean of the seeds 0, 1, 2) on simulated bookmarks, where the oracle has 0.9236;
`python -m umair_jax.sweep --config=configs/paper_table.py --workers=2` prints it again, with the
baselines.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from umair_jax.training.sharding import DEFAULT_RULES


def get_config(arg: str = "") -> ConfigDict:
    """The config; takes no argument after the file's name."""
    if arg:
        raise ValueError(f"configs/base.py: got the argument {arg!r}; expected none")
    config = ConfigDict()
    config.task = "bookmarks"
    config.seed = 0  # of initial weights, dropout and the order of examples

    config.data = ConfigDict()
    config.data.source = "openclipart"
    config.data.path = ""
    config.data.limit = 0  # all drawings
    config.data.untimed_tags = False
    config.data.root = "data"
    config.data.seed = 0  # of the simulated log
    config.data.pixel_limit = 50_000_000
    config.data.max_bad_share = 0.05
    config.data.negatives = "auto"
    config.data.negatives_per_positive = 4

    # The paper's fields. A catalogue of thousands needs no table of a million rows, and counts
    # that start from zero need other buckets than those of a large site.
    config.schema = ConfigDict()
    config.schema.embedding_width = 8
    config.schema.sizes = {
        "illust_id": 65_536,
        "artist_id": 10_000,
        "item_tag": 8_000,
        "user_tag": 8_000,
        "user_id": 16_384,
        "username": 16_384,
    }
    config.schema.boundaries = {
        "total_view": (1, 2, 4, 8, 16, 32, 64, 128, 256),
        "total_bookmarks": (1, 2, 4, 8, 12, 16, 24, 32, 64),
    }
    config.schema.bookmark_rate = (
        *(0.12, 0.16, 0.20, 0.24, 0.28, 0.32, 0.36, 0.40, 0.45, 0.50, 0.55, 0.60),
    )
    config.schema.categories = 0
    config.schema.interest_vectors = ("text", "style", "content")
    config.schema.drop = ()

    config.features = ConfigDict()
    config.features.split = "temporal"
    config.features.fractions = (0.8, 0.1, 0.1)
    config.features.split_seed = 0
    config.features.long_max = 50
    config.features.short_max = 8
    config.features.long_days = placeholder(float)
    config.features.short_days = placeholder(float)
    config.features.log_style = False
    config.features.standardise = False
    config.features.zero = ()
    config.features.history = 0  # bookmarked items that a ranker reads one by one
    config.features.vector_dtype = "float32"
    config.features.vectors_on = "device"

    # ResNet101's topology at a quarter of its width: the network of the weights in the package.
    config.extract = ConfigDict()
    config.extract.image = {
        "depth": 101,
        "base_width": 16,
        "blocks": (),
        "widths": (),
        "padding": "symmetric",
        "epsilon": 1e-5,
        "image_size": 96,
        "content_stage": 4,
        "content_block": 0,
        "style": {
            "stages": (1,),
            "blocks": 0,
            "stride": 1,
            "kernel": "gram",
            "frequencies": 512,
            "bandwidths": (0.2,),
            "pool": "triangle",
            "combine": "max",
            "channel_norm": "none",
            "compress": True,
            "standardise": True,
            "projection": 0,
        },
        "whiten_content": 64,
        "whiten_style": 64,
        "whiten_shrinkage": 0.1,
        "pre_activation": False,
        "mean": (),
        "std": (),
        "last_gamma": 0.1,
        "dtype": "float32",
        "remat": "none",
    }
    # The shape of the text encoder in the package.
    config.extract.text = {
        "layers": 1,
        "width": 192,
        "heads": 6,
        "ffn": 768,
        "max_positions": 64,
        "position_offset": 0,
        "relative_buckets": 0,
        "token_types": 0,
        "epsilon": 1e-12,
        "pooling": "mean",
        "output": 512,
        "activation": "tanh",
        "normalise": False,
        "dropout": 0.1,
        "initial_std": 0.02,
        "position_std": 0.002,
        "dtype": "float32",
    }
    config.extract.text_fields = ("tags", "title")
    config.extract.tag_separator = " "
    config.extract.vocabulary_size = 16_000
    config.extract.max_tokens = 32
    config.extract.image_batch = 64
    config.extract.text_batch = 64
    config.extract.shard_items = 512
    # The whole catalogue: on 512 drawings some numbers of the triangle hardly vary, and whitening
    # blows them up in the others.
    config.extract.calibration_images = 4096
    config.extract.decode_threads = 2
    config.extract.decode_workers = 0
    config.extract.pixel_limit = 50_000_000
    config.extract.max_bad_share = 0.2
    config.extract.seed = 0
    config.extract.store_dtype = "float32"
    config.extract.image_weights = "builtin"
    config.extract.text_weights = "builtin"

    config.model = ConfigDict()
    config.model.name = "umair_fps"
    config.model.meta = True
    config.model.tower_widths = (256, 64)
    config.model.modality_width = 64
    config.model.dropout = 0.0
    config.model.umcm = "senet"
    config.model.umcm_experts = ("attention", "senet")
    config.model.attention_dropout = 0.5
    config.model.cross = "mixture"
    config.model.cross_layers = 2
    config.model.cross_rank = 32
    config.model.cross_experts = 4
    config.model.residual = False
    config.model.head_widths = (64, 32, 16)
    config.model.wide = True
    config.model.fm = "none"
    config.model.modality_norm = False
    config.model.dtype = "float32"

    config.train = ConfigDict()
    config.train.batch_size = 1024
    config.train.steps = placeholder(int)
    config.train.epochs = 10.0
    config.train.log_every_steps = 100
    config.train.eval_every_steps = 500
    config.train.checkpoint_every_steps = 500
    config.train.early_stop_evals = 0
    config.train.read_threads = 2
    config.train.micro_batches = 1

    config.optim = ConfigDict()
    config.optim.name = "adamw"
    config.optim.learning_rate = 4e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_fraction = 0.05
    config.optim.final_fraction = 0.0
    config.optim.weight_decay = 1.0
    config.optim.decay_mask = r"^(?!.*(bias|scale)).*$"
    config.optim.clip_norm = 0.0
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    config.optim.eps = 1e-7
    config.optim.momentum = 0.0
    config.optim.ema_decay = 0.995
    config.optim.rates = ()

    config.tables = ConfigDict()
    config.tables.name = "rowwise_adagrad"
    config.tables.learning_rate = 0.1
    config.tables.l2 = 0.0
    config.tables.initial_accumulator = 0.1
    config.tables.b1 = 0.9
    config.tables.b2 = 0.999
    config.tables.eps = 1e-7
    config.tables.dtype = "float32"

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices that `model` leaves
    config.mesh.model = 1
    config.mesh.rules = DEFAULT_RULES
    config.mesh.context_rules = ()

    # Where this process stands among several; see docs/scale.md.
    config.hosts = ConfigDict()
    config.hosts.coordinator = ""
    config.hosts.processes = 0
    config.hosts.process = -1
    config.hosts.cluster = ""
    config.hosts.local = False
    config.hosts.start_seconds = 300
    config.hosts.barrier_seconds = 3600
    config.hosts.heartbeat_seconds = 100

    config.eval = ConfigDict()
    config.eval.batch_size = 2048
    config.eval.bootstrap_draws = 200

    config.checkpoint = ConfigDict()
    config.checkpoint.keep = 2
    config.checkpoint.best_metric = "valid/auc"
    config.checkpoint.best_mode = "max"
    config.checkpoint.restore_best = True

    config.log = ConfigDict()
    config.log.progress = True
    config.log.tensorboard = True
    config.log.sharding_table = True
    config.log.cost = False
    config.log.profile_start_step = 0
    config.log.profile_stop_step = 0
    return config.lock()
