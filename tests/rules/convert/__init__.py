"""Fixtures of aimock as rules."""
