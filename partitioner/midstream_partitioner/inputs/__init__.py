"""Inputs of a model: samples, pictures, arrays."""
