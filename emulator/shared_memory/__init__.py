"""Memory shared by the processes of a server; independent of what it holds."""
