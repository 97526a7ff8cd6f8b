"""Clients of other people, unmodified, against the emulator; `run` makes their environment."""
