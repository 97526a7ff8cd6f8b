"""What ``locustfile.py`` stands on: reading streams, reporting, options, limits and charts."""
