"""Costs as values: links, devices, profiles, calibrations, and sizes."""
