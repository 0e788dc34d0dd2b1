"""Scenario files: the quantities that stand in them."""
