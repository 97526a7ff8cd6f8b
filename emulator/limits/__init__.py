"""Rate limits and keys: what a request may take, who may ask, and the words of a refusal."""
