"""Groups of flags that several commands take, as values."""
