"""Helpers for ONNX models: names, constants, validation, files."""
