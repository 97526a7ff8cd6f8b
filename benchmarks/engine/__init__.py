"""Compares the engine with the load sweep of a real vLLM."""
