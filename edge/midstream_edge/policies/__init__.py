"""Policies: the controller, and its rivals, each of which places every request."""
