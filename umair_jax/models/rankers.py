"""Every ranker by the name that a config gives it."""

from umair_jax.models.baselines import BASELINES
from umair_jax.models.inputs import InputShapes
from umair_jax.models.ranker import RankerConfig

UMAIR_FPS = "umair_fps"
RANKERS: dict[str, type[InputShapes]] = {UMAIR_FPS: RankerConfig, **BASELINES}
