"""Network namespaces, and the process that owns a backend."""
