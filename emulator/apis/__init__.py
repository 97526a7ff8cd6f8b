"""The APIs, a room for each."""
