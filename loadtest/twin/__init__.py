"""Measuring a server, fitting an engine to it, and checking the one against the other."""
