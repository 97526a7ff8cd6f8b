"""Tests of rules that are tried with no effect."""
