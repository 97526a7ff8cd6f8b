"""Tests of legacy completions."""
