"""Maps of what would win, over links and devices."""
