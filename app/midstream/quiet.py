"""Hushes gRPC's core, which is told so by its environment when it is loaded.

What it would log comes back as an error as well, and is then told in one sentence. Whoever
wants to see the core's own words sets GRPC_VERBOSITY.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
