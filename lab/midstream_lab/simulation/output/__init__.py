"""Output of simulations: a table of requests, and statistics of it."""
