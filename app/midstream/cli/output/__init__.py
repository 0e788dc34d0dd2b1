"""What commands print for people: tables, live views, outcomes."""
