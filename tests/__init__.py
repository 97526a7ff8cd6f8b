"""Tests of the parts, and the helpers that every test file shares."""
