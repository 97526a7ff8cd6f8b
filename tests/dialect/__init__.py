"""Tests of the dialects: what another server than OpenAI's answers."""
