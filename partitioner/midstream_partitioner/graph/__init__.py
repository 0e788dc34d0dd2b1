"""A network as nodes and tensors, and where it can be cut."""
