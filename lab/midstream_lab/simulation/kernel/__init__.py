"""The event queue and the random streams of a simulation."""
