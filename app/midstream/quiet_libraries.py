"""Tells libraries to keep quiet, which they read from their environment when they are loaded.

What gRPC's core would log comes back as an error as well, and is then told in one sentence;
whoever wants its own words sets GRPC_VERBOSITY. onnxruntime can report to its makers (from
1.31 on in Linux, too); a program that promises that an input does not leave the device
reports nothing about it either.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
