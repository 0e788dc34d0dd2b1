"""Graphs, cuts, partitions, profiles and plans. Opens no socket."""
