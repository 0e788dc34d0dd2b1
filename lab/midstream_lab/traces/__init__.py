"""How fast a network was, moment by moment: read, looked at, changed, made up, written."""
