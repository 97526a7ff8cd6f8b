"""The way of one request, from its bytes to the answer."""
