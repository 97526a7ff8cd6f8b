"""Injected failures: their kinds, and which requests get one."""
