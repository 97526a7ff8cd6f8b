"""Chats as vLLM answers them."""
