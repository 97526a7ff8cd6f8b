"""Control while the server runs: what can change, for all workers and hosts, and who may do it."""
