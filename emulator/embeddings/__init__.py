"""Embeddings of texts; independent of HTTP and of the clock."""
