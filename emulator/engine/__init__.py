"""A model of an inference engine, whose queue, batch and cache decide when tokens are due."""
