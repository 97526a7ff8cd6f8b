"""Tests of answers that are lists: embeddings and moderations."""
