"""Eight host devices for every test, before JAX starts; shapes are checked at run time."""

import gc
import os
import warnings

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of the time goes into compiling programs that run once. XLA's own passes, which decide what
# is computed and in which order, are the ones of every run; LLVM's are left out.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

from jaxtyping import install_import_hook

install_import_hook("umair_jax", "beartype.beartype")


# First, so that at the end no worker is left alone with one of them.
LONGEST = ("test_local_hosts.py", "test_train.py", "test_joint.py", "test_image_tags.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish():
    # JAX's tracing makes objects by the million: a fifth of the time went into looking for cycles
    # among them and among all that was collected.
    gc.set_threshold(50_000, 20, 20)
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    # What reads of damaged checkpoints leave in Orbax's threads is collected only now.
    warnings.filterwarnings("ignore", category=pytest.PytestUnraisableExceptionWarning)


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Keeps compiled programs, for tests that compile the same few again and again.

    Yields the environment with which other processes share them.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield {name.upper(): str(value) for name, value in options.items()}
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
