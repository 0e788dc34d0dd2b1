"""Many edges that share a cloud, in virtual time."""
