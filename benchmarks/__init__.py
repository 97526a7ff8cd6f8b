"""Programs that print figures."""
