"""When tokens are due, and when they left; nothing here knows HTTP."""
