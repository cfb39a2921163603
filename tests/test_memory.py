import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, threading
import numpy as np
from umair_jax.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []

def work():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(100_000_000, np.uint8)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(faults[-1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_used_again_without_page_faults():
    def faults(how: str) -> int:
        command = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < 10
    assert faults("default") > 40


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counted by Linux")
def test_the_peak_is_the_process_s_own():
    def peak(size):
        program = (
            f"x = b'1' * {size}; from umair_jax import memory; print(memory.peak_memory_bytes())"
        )
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        return int(ended.stdout)

    held = b"1" * 300_000_000  # of the one that asks
    small, large = peak(1), peak(100_000_000)
    assert small < 100_000_000 < large < 200_000_000 < len(held)
