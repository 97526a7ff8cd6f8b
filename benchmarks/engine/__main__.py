"""Predicts an engine's latency under load: ``python -m benchmarks.engine``."""

from benchmarks.engine.prediction import main

main()
