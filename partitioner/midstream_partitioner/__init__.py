"""What can be cut and where: graphs, cuts, partitions, profiles, plans. Knows no network."""
