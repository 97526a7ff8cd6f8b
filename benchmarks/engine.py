"""Predicts an engine's latency under load, in simulated time: python -m benchmarks.engine NAME.

Everything is in benchmarks/engine_load.py; mypy would take this file for the package `engine`.
"""

from benchmarks.engine_load import main

if __name__ == "__main__":
    main()
