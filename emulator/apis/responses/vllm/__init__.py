"""Responses as vLLM answers them."""
