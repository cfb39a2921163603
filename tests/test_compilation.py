import os
import subprocess
import sys

CODE = """
import sys
from pathlib import Path
import jax
from umair_jax.compilation import keep_compiled
keep_compiled(Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x * 2 + 1)(3.0)
"""


def test_what_is_compiled_is_kept_where_jax_was_told_or_in_the_folder(tmp_path):
    for told, used, empty in (("", "folder", "told"), ("told", "told", "folder2")):
        folder = tmp_path / ("folder2" if told else "folder")
        more = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / told)} if told else {}
        clean = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        subprocess.run([sys.executable, "-c", CODE, str(folder)], env=clean | more, check=True)
        assert list((tmp_path / used).glob("jit_*"))
        assert not (tmp_path / empty).exists()
