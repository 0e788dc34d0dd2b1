"""Generated from midstream.proto by `python -m midstream_wire.generate`; do not edit."""
