"""Failures on purpose: which kinds there are, who is to get one, and how often."""
