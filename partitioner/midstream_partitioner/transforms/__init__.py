"""Calibrated changes of coordinates in front of a codec."""
