"""A trace of some updates, for TensorBoard's profiler."""

from __future__ import annotations

from pathlib import Path

import jax

from umair_jax.training.logs import PROFILE_DIR, LogConfig


class Profile:
    """The window of steps that jax.profiler traces."""

    def __init__(self, workdir: Path, config: LogConfig) -> None:
        """Nothing is traced yet.

        Args:
            workdir: The run's folder; traces go to a folder in it.
            config: First and last step.
        """
        self._directory, self._config, self._running = workdir / PROFILE_DIR, config, False

    def at(self, step: int) -> None:
        """Starts or ends the trace before update ``step``."""
        first, last = self._config.profile_start_step, self._config.profile_stop_step
        if not self._running and first <= step < last:
            jax.profiler.start_trace(str(self._directory))
            self._running = True
        elif self._running and step >= last:
            self.stop()

    def stop(self) -> None:
        """Ends the trace, if one runs."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
