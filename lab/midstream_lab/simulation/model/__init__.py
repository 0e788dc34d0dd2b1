"""What a simulation consists of: links, edges, replicas, requests."""
