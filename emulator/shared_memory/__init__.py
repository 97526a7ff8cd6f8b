"""Memory that the processes of a server share; knows nothing of what it holds."""
