"""Tests of the control while the server runs."""
