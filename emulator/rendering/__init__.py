"""Answers as JSON and as server-sent events."""
