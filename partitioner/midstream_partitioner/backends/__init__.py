"""Backends that run segments: onnxruntime with any provider, or torch."""
