"""Whether an emulated link does what was asked of it, measured."""
