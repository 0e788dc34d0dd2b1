"""A network cut once into a chain of segments: the value, cutting, the folder."""
