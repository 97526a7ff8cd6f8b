"""Failures on purpose: who gets one, and the answers that fail."""
