"""The page at ``/``: plain HTML, CSS and ES modules, and what serves them."""
