"""How a server speaks: as OpenAI's, or as another's that has the same API."""
