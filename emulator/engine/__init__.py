"""A model of an inference engine's queue, batch and cache: it decides when tokens are due."""
