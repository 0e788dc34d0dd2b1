"""Requests as experiments make them, and comparisons of what they took."""
