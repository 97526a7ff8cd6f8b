"""Tests of the memory that processes share."""
