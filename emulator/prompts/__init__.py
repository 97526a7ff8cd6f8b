"""What a prompt holds, and how many tokens it has."""
