"""What a client asks for beside the API: times, lengths, jitter."""
