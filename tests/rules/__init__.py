"""Rules: reading, matching, counting, deciding, and the answers that they write."""
