"""Runs that several commands begin: a planner, a session under a policy, a fleet, a sweep."""
