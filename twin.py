"""Measures a server, fits an engine to it and checks the two: ``python -m twin``."""

from loadtest.twin.commands import main

if __name__ == "__main__":
    main()
