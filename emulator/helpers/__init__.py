"""Processes for work that would keep the clock waiting; knows nothing of what the work is."""
