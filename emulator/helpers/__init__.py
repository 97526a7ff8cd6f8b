"""Helper processes for work that would block the event loop; independent of what the work is."""
