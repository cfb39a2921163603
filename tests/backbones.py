"""ResNets under the names of other libraries, for tests of weights in and out."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from umair_jax.models import weights
from umair_jax.models.initialise import HostDraws
from umair_jax.models.resnet import ResNet

GOLDEN = Path(__file__).parent / "golden"


def golden(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def entries(name):
    return {key[2:]: np.asarray(a) for key, a in golden(name).items() if key.startswith("w/")}


def block_outputs(found, x):
    """Residual sums of every block, stage by stage."""
    network = ResNet(found.config, rngs=HostDraws(0))
    weights.fill(network, {k.removeprefix("backbone/"): v for k, v in found.arrays.items()})
    graph, state = nnx.split(network)
    return jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, jnp.asarray(x))


def relative_error(got, expected):
    return np.abs(np.asarray(got) - expected).max() / np.abs(expected).max()


def without(arrays, *names):
    return {key: array for key, array in arrays.items() if key not in names}
