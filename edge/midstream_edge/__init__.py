"""The edge side: runs the head, streams activations, always answers."""
