"""Connections, and the way out of answers."""
