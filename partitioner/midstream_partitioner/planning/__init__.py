"""Planning: the cut and codec that win on a link, and why."""
