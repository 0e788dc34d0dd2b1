"""Measurements that show if an emulated link does what was asked of it."""
