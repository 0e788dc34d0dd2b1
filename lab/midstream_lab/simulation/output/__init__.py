"""What simulations leave: a table of requests, and statistics of it."""
