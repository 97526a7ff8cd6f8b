"""Builds the image and runs it as deploy/kubernetes/ does: `python -m deploy.check_image`."""
