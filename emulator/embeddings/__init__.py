"""Texts as vectors; nothing here knows HTTP or a clock."""
