"""Tests of pages, scripts, packages and the order of the rooms."""
