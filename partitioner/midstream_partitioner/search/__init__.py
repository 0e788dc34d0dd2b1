"""The cheapest cut of a graph, by maximum flow."""
