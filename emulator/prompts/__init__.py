"""Attachments and token counts of prompts."""
