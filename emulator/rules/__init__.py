"""Rules: how fast which requests are answered, how they fail, and what the answers say."""
