"""Experiments: policies against traces, networks and seeds; what came out, and its report.

`results`, `summary` and `report` know nothing of how the requests were run: measured and
simulated ones are told by the same code.
"""
