"""What came and what became of it: rows of requests, marks, and a summary of each second."""
