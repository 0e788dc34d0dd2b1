"""What came out of runs, as rows, and what they say when compared."""
