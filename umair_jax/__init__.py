"""Multi-modal recommendation of drawings on JAX: UMAIR-FPS, re-implemented and scaled."""

__version__ = "0.1.0"
