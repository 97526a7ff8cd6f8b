"""Rate limits and API keys, and the messages of refusals."""
