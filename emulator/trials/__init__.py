"""Rules tried against one request, with no effect."""
