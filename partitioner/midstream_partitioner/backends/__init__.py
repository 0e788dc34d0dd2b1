"""What runs segments: onnxruntime with any provider, or torch."""
