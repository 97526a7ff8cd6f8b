"""What the benchmarks share: servers, clients, attacks."""
