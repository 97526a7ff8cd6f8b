"""What the choices of an answer say; nothing here knows a clock."""
