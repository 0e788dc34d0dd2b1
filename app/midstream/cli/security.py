"""The flags by which an edge trusts a server and a server knows an edge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midstream_edge.channel import Dial
from midstream_wire.credentials import channel_tls, load_token

Authority = Annotated[
    Path | None,
    typer.Option(
        "--ca", help="TLS; the authority that signed the server's certificate (PEM)."
    ),
]
Certificate = Annotated[
    Path | None, typer.Option("--cert", help="This side's certificate for mutual TLS (PEM).")
]
Key = Annotated[Path | None, typer.Option("--key", help="Key of that certificate (PEM).")]
Token = Annotated[
    Path | None, typer.Option("--token-file", help="File with the bearer token.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow plaintext beyond loopback.")]


def dial_of(
    server: str,
    *,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    token_file: Path | None,
    insecure: bool,
) -> Dial:
    """How to reach `server`: TLS if any file of it is given, plaintext otherwise."""
    tls = ca is not None or cert is not None or key is not None
    return Dial.of(
        server,
        credentials=channel_tls(authority=ca, certificate=cert, key=key) if tls else None,
        token=load_token(token_file) if token_file is not None else None,
        insecure=insecure,
    )
