"""Another partition of the same model, cut and loaded while a session runs."""
