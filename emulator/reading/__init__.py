"""From the bytes of a request to its composed answers, here or by a helper."""
