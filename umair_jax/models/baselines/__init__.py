"""The models that UMAIR-FPS is compared with, one page each.

All take the same batches as UMAIR-FPS, and vectors as plain dense inputs or, by a schema without
dense fields, none. Their deep networks are the published UMAIR-FPS code's: dense, batch
normalisation, ReLU, dropout.
"""

from umair_jax.models.baselines.autoint import AutoIntConfig
from umair_jax.models.baselines.dcn import DCNConfig, DCNV2Config
from umair_jax.models.baselines.deepfm import DeepFMConfig
from umair_jax.models.baselines.difm import DIFMConfig
from umair_jax.models.baselines.edcn import EDCNConfig
from umair_jax.models.baselines.factorization_machine import FactorizationMachineConfig
from umair_jax.models.baselines.features import BaselineConfig
from umair_jax.models.baselines.fibinet import FiBiNETConfig
from umair_jax.models.baselines.finalmlp import FinalMLPConfig
from umair_jax.models.baselines.item_knn import ItemKNNConfig
from umair_jax.models.baselines.logistic_regression import LogisticRegressionConfig
from umair_jax.models.baselines.wide_deep import WideDeepConfig
from umair_jax.models.baselines.xdeepfm import XDeepFMConfig

BASELINES: dict[str, type[BaselineConfig]] = {
    "lr": LogisticRegressionConfig,
    "fm": FactorizationMachineConfig,
    "wide_deep": WideDeepConfig,
    "deepfm": DeepFMConfig,
    "xdeepfm": XDeepFMConfig,
    "dcn": DCNConfig,
    "dcnv2": DCNV2Config,
    "autoint": AutoIntConfig,
    "difm": DIFMConfig,
    "edcn": EDCNConfig,
    "fibinet": FiBiNETConfig,
    "finalmlp": FinalMLPConfig,
    "item_knn": ItemKNNConfig,
}
