"""What crosses the link: tensors, codecs, messages. Knows nothing of models or sockets."""
