"""The `midstream` command: one module per group of commands, `main` at the root."""
