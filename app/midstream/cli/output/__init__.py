"""Output of commands for people: tables, live views, outcomes."""
