"""Anthropic's Messages, which vLLM serves too."""
