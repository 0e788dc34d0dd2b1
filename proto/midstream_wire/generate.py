"""Regenerates the code of v1/midstream.proto: `python -m midstream_wire.generate [FOLDER]`.

The code is committed, so that nobody needs a compiler to use midstream. It is made with one
version of grpcio-tools, whose output works with protobuf 6 and 7; newer versions write code
that refuses the older runtime.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from midstream_wire.errors import MidstreamError, UsageError

#: The compiler that the committed code is made with.
GRPCIO_TOOLS_VERSION = "1.76.0"

#: The import root: generated modules import each other as midstream_wire.v1.*.
ROOT = Path(__file__).resolve().parent.parent

PROTO = "midstream_wire/v1/midstream.proto"

#: What `generate` writes, relative to the folder it writes into.
OUTPUTS = tuple(
    PROTO.replace(".proto", suffix) for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")
)


def compiler_version() -> str | None:
    """Version of the installed grpcio-tools; None when there is none."""
    try:
        return importlib.metadata.version("grpcio-tools")
    except importlib.metadata.PackageNotFoundError:
        return None


def generate(folder: Path) -> None:
    """Write `OUTPUTS` under `folder`; `UsageError` without the right grpcio-tools."""
    found = compiler_version()
    if found != GRPCIO_TOOLS_VERSION:
        raise UsageError(
            f"the generated code is made with grpcio-tools {GRPCIO_TOOLS_VERSION} (not "
            f"{found or 'none'}): pip install grpcio-tools=={GRPCIO_TOOLS_VERSION}"
        )
    from google.rpc import status_pb2
    from grpc_tools import protoc

    # google/rpc/status.proto lies beside the code generated from it.
    googleapis = Path(status_pb2.__file__).parents[2]
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{root}" for root in (ROOT, googleapis, well_known)]
    arguments += [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    folder.mkdir(parents=True, exist_ok=True)
    if protoc.main(["protoc", *arguments, PROTO]) != 0:
        raise MidstreamError(f"{PROTO} must compile: see the compiler's message above")


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else ROOT
    try:
        generate(folder)
    except MidstreamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
