"""Which cut and codec wins on a link, and why."""
