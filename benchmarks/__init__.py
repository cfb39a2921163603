"""Measurements against named peers: python -m benchmarks.input, python -m benchmarks.ranker."""
