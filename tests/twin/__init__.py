"""Tests of the twin: measuring a server, fitting an engine, checking the one by the other."""
