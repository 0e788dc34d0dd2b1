"""From requests to answers: heads, sending, hedges, local rests."""
