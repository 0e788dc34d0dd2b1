"""The flags by which an edge trusts a server and a server knows an edge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import typer

from midstream.cli.flags.common import takes
from midstream_edge.link.endpoint import Endpoint
from midstream_wire.credentials import load_token, trust

Token = Annotated[
    Path | None, typer.Option("--token-file", help="File with the bearer token.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow plaintext beyond loopback.")]


@final
@dataclass(frozen=True, slots=True)
class Trust:
    """An edge's means to authenticate a server, and its own credentials."""

    ca: Annotated[
        Path | None,
        typer.Option(
            help="Authority that signed the server's certificate (PEM); turns TLS on."
        ),
    ] = None
    cert: Annotated[
        Path | None, typer.Option(help="This side's certificate for mutual TLS (PEM).")
    ] = None
    key: Annotated[Path | None, typer.Option(help="Key of that certificate (PEM).")] = None
    token_file: Token = None
    insecure: Insecure = False

    def endpoint(self, server: str) -> Endpoint:
        """Return how to reach `server`: TLS if any file of it is given, plaintext
        otherwise.
        """
        tls = trust(self.ca, self.cert, self.key)
        token = load_token(self.token_file) if self.token_file is not None else None
        return Endpoint.of(server, tls=tls, token=token, insecure=self.insecure)


takes_trust = takes("trust", Trust)
