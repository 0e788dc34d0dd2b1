"""Results of runs, as rows, and their comparison."""
