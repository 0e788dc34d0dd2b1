"""Reference networks, emulated links, and experiments with real processes."""
