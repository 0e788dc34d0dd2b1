"""Published choices of a cut, made again by the planner from declared devices and networks.

What was published, what is declared here and where the two differ: docs/results/papers.md.
"""
