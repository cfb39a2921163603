"""What XLA compiles, kept on disk for the next run of the same network."""

from pathlib import Path

import jax


def keep_compiled(folder: Path) -> None:
    """Keeps compiled functions in a folder; call it before anything is compiled.

    A run with another seed finds all of them there. Does nothing where JAX was told of a folder
    before (JAX_COMPILATION_CACHE_DIR).
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
