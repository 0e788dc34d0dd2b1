"""Measuring segments and codecs, and calibrating what codecs cost in accuracy."""
