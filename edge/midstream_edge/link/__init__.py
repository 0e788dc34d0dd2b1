"""One connection to a server: kept up, watched and measured."""
