"""OpenAI's API over HTTP: from bytes to a plan, and from timed tokens to bytes."""
