"""The summary of each second: what each worker counts, and the sum of all."""
