"""The table of the paper: UMAIR-FPS against fourteen models, with and without vectors.

    python -m umair_jax.sweep --config=configs/paper_table.py
    python -m umair_jax.sweep --config=configs/paper_table.py:movielens:cold_item

The argument names the config whose data are used, configs/base.py without. With
`--config.search.trials=4 --config.search.winners=` every row's hyper-parameters are searched with
the same budget. Its winners.json, copied to configs/winners under the config's name (base.json,
movielens_cold_item.json), is used from there. A split of the same data that has no such file takes
another's; without any, every row has its config's own.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import baselines

WINNERS = Path(__file__).with_name("winners")
LABELS = {
    "popularity": "popularity",
    "item_knn": "item-kNN (content)",
    "lr": "LR",
    "fm": "FM",
    "wide_deep": "Wide & Deep",
    "deepfm": "DeepFM",
    "xdeepfm": "xDeepFM",
    "dcn": "DCN",
    "dcnv2": "DCN-V2",
    "autoint": "AutoInt",
    "difm": "DIFM",
    "edcn": "EDCN",
    "fibinet": "FiBiNET",
    "finalmlp": "FinalMLP",
}
IDS, IDS_ALONE, VECTORS = "ids, tags, counts", "ids, tags", "and vectors"
COUNTS, CONTENT = "counts", "vectors"
# Films: their counts are left out, see configs/movielens.py, so popularity has nothing to read.
WITHOUT_COUNTS = ("movielens",)

SPACE = {
    "optim": {"learning_rate": (1e-3, 2e-3, 4e-3, 8e-3), "weight_decay": (0.1, 1.0, 3.0)},
    "tables": {"learning_rate": (0.03, 0.1, 0.2, 0.4)},
    "model": {"dropout": (0.0, 0.1, 0.3)},
}


def get_config(arg: str = "") -> ConfigDict:
    """The rows; on configs/base.py, or on the config that the argument names."""
    on = arg or "base"
    module, _, inner = on.partition(":")
    config = ConfigDict()
    config.title = f"UMAIR-FPS and its baselines, configs/{module}.py{inner and ':' + inner}"
    config.rows = ConfigDict(sort_keys=False)
    file = f"configs/{module}.py{inner and ':' + inner}"
    config.rows.umair_fps = row(file, "UMAIR-FPS", VECTORS)
    for name, label in LABELS.items():
        if name == "popularity" and module in WITHOUT_COUNTS:
            continue
        alone = {"popularity": COUNTS, "item_knn": CONTENT}.get(name)
        for sparse in (False,) if alone else (True, False):
            words = ",".join([name, *(["sparse"] if sparse else []), f"on={on}"])
            ids = IDS_ALONE if module in WITHOUT_COUNTS else IDS
            features = alone or (ids if sparse else VECTORS)
            key = f"{name}_sparse" if sparse else name
            config.rows[key] = row(f"configs/baselines.py:{words}", label, features)
    config.reference = "umair_fps"
    config.seeds = (0, 1, 2)
    config.overrides = ConfigDict()
    config.draws = 1000
    config.search = ConfigDict()
    config.search.trials = 0
    config.search.seed = 0
    config.search.space = ConfigDict(SPACE)
    found = [WINNERS / f"{on.replace(':', '_')}.json", *sorted(WINNERS.glob(f"{module}_*.json"))]
    config.search.winners = next((str(path) for path in found if path.exists()), "")
    return config.lock()


def row(config: str, label: str, features: str) -> ConfigDict:
    """One line of a table."""
    return ConfigDict(
        {"config": config, "label": label, "features": features, "overrides": ConfigDict()}
    )


assert set(LABELS) == set(baselines.NAMES), "a baseline without a label"
