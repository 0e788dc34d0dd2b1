"""The wire format: tensors, codecs, messages. Knows nothing of models or sockets."""
