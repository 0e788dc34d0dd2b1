"""Trials in virtual time: one pair, fleets that share a cloud, and maps of what would win.

What decides is the very code that a session runs (`midstream_edge.policies`); what it decides
about, a link, a queue, processors, is modelled here (docs/explanation/simulation.md).
"""
