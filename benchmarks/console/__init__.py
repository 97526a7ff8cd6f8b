"""What the page at ``/`` shows under load, and what it costs."""
