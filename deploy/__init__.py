"""Deployment files, and what checks the image."""
