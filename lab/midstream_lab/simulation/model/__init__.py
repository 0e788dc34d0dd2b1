"""Parts of a simulation: links, edges, replicas, requests."""
