"""Tests of the journal: rows, marks, and the summary of each second."""
