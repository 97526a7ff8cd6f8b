"""Scripts that print what the emulator does: each runs as ``python -m benchmarks.NAME``."""
