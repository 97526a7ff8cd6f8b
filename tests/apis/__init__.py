"""Tests of apis."""
