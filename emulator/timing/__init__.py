"""Due times, the clock that sleeps until them, and what was measured; independent of HTTP."""
