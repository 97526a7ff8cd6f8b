"""What vLLM serves beside OpenAI's API."""
