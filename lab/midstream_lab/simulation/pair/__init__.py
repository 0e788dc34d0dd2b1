"""One edge and one cloud, in virtual time."""
