"""A TCP proxy that delays and limits what it relays."""
