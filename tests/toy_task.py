"""The smallest task that uses all of the training: a table, a dense weight, statistics, a context.

Run as a program it trains for the tests that kill it: ``python toy_task.py WORKDIR [key=value]``.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from umair_jax import hosts
from umair_jax.data.batches import BatchSource
from umair_jax.hosts import HostsConfig
from umair_jax.training import metrics
from umair_jax.training.checkpoints import CheckpointConfig
from umair_jax.training.evaluation import Evaluator
from umair_jax.training.logs import LogConfig
from umair_jax.training.loop import fit
from umair_jax.training.optimisers import OptimConfig
from umair_jax.training.settings import FitConfig, TrainConfig
from umair_jax.training.sharding import MeshConfig
from umair_jax.training.table_optimisers import TableOptimConfig

ITEMS, USERS, WIDTH = 40, 24, 4


class ToyTask:
    """Logistic regression on item features plus the product of user and item embeddings."""

    name = "toy"

    def __init__(self, explode_at=-1):
        self.explode_at = explode_at

    def init(self, key):
        table = 0.1 * jax.random.normal(key, (64, WIDTH))
        net = {"layers": {0: {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}}}
        return {
            "params": {"net": net, "tables": {"embedding": table}},
            "stats": {"seen": jnp.zeros(())},
        }

    def context(self):
        features = np.random.default_rng(7).normal(size=(ITEMS, 3)).astype(np.float32)
        return {"features": features}

    def table_rows(self, context, batch):
        return {"embedding": jnp.stack([batch["item"], ITEMS + batch["user"]], axis=1)}

    def _logit(self, net, rows, context, batch):
        layer = net["layers"][0]
        linear = context["features"][batch["item"]] @ layer["kernel"] + layer["bias"]
        return linear[:, 0] + (rows["embedding"][:, 0] * rows["embedding"][:, 1]).sum(-1)

    def loss(self, net, rows, stats, context, batch, key):
        keep = jax.random.bernoulli(key, 0.9, rows["embedding"].shape)
        rows = {"embedding": jnp.where(keep, rows["embedding"] / 0.9, 0)}
        logit = self._logit(net, rows, context, batch)
        label, weight = batch["label"].astype(jnp.float32), batch["weight"]
        each = jnp.logaddexp(0, logit) - label * logit
        total = jnp.sum(each * weight)
        loss = total / jnp.sum(weight)
        loss = jnp.where(stats["seen"] == self.explode_at, jnp.nan, loss)
        right = jnp.sum(((logit > 0) == (label > 0)) * weight)
        return loss, (
            {"seen": stats["seen"] + 1},
            {"log_loss": (total, jnp.sum(weight)), "accuracy": (right, jnp.sum(weight))},
        )

    def predict(self, net, rows, stats, context, batch):
        return {"probability": jax.nn.sigmoid(self._logit(net, rows, context, batch))}


class TallTask(ToyTask):
    """The toy with a table of any number of rows."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def init(self, key):
        made = super().init(key)
        made["params"]["tables"]["embedding"] = jnp.zeros((self.rows, WIDTH))
        return made


def columns(examples, seed=0):
    generator = np.random.default_rng(seed)
    item = generator.integers(0, ITEMS, examples).astype(np.int32)
    user = generator.integers(0, USERS, examples).astype(np.int32)
    slope = np.array([1.5, -1.0, 0.5])
    logit = ToyTask().context()["features"][item] @ slope + (user % 3 == item % 3)
    label = (generator.random(examples) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    return {"item": item, "user": user, "label": label}


def evaluator(source, final_only=False):
    def compute(arrays):
        return metrics.evaluate_predictions(
            source.column("label"), arrays["probability"], source.column("user"), draws=0
        )

    return Evaluator(source, compute, final_only)


def run(workdir, task=None, restart=False, pause=0.0, mesh=None, **options):
    """Trains with small defaults; ``options`` are fields of any section."""
    sections = {
        "train": TrainConfig,
        "optim": OptimConfig,
        "tables": TableOptimConfig,
        "mesh": MeshConfig,
        "checkpoint": CheckpointConfig,
        "log": LogConfig,
    }
    values = {
        "train": {
            "batch_size": 16,
            "steps": 40,
            "log_every_steps": 5,
            "eval_every_steps": 10,
            "checkpoint_every_steps": 5,
        },
        "tables": {"learning_rate": 0.1},
        "optim": {"learning_rate": 0.02, "schedule": "cosine", "clip_norm": 1.0},
        "checkpoint": {"best_metric": "valid/auc"},
        "log": {"tensorboard": False, "sharding_table": False},
    }
    for name, value in options.items():
        section, field = name.split("__")
        values.setdefault(section, {})[field] = value
    config = FitConfig(**{name: sections[name](**given) for name, given in values.items()})
    train = columns(300)
    source = BatchSource(train, config.train.batch_size, seed=3)
    if pause:
        source = _Slow(train, config.train.batch_size, seed=3)
        source.pause = pause
    valid = BatchSource(columns(90, seed=1), 32, shuffle=False)
    test = BatchSource(columns(70, seed=2), 32, shuffle=False)
    evaluators = {"valid": evaluator(valid), "test": evaluator(test, final_only=True)}
    return fit(task or ToyTask(), source, evaluators, config, workdir, mesh, restart)


class _Slow(BatchSource):
    pause = 0.0

    def batch(self, k, rows=None):
        time.sleep(self.pause)
        return super().batch(k, rows)


def leaves(state):
    """Path -> numpy array."""
    found = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in found}


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[2:])
    options = {name: int(value) for name, value in given.items() if "__" in name}
    if "hosts" in given:
        place = given["address"], int(given["hosts"]), int(given["host"])
        hosts.start(HostsConfig(*place, local=True, heartbeat_seconds=10))
    result = run(sys.argv[1], pause=float(given.get("pause", 0)), **options)
    print(f"steps={result.steps} interrupted={result.interrupted}", flush=True)
