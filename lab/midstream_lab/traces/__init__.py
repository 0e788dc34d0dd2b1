"""Traces of a link's rate over time: read, looked at, changed, made up, written."""
