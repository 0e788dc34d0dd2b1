"""From an ONNX file or a torch module to a model that can be cut."""
