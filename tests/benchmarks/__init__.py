"""Benchmarks: every goal of the engine as a ratio to a baseline that is measured in the same run."""
