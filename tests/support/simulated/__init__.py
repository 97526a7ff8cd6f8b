"""The service on simulated time: what it sends, and when, to the bit and whatever else runs."""
