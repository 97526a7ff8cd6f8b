"""Running the service that this package carries: its options, its processes, who shares it."""
