"""Addresses are read strictly, and loopback is told from the world."""

from __future__ import annotations

import pytest

from midstream_wire.address import Address, parse_address
from midstream_wire.errors import UsageError


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("localhost:50051", "localhost", 50051, True),
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("127.9.8.7:1", "127.9.8.7", 1, True),
        ("[::1]:65535", "::1", 65535, True),
        ("unix:/run/midstream.sock", "/run/midstream.sock", None, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
        ("192.168.0.7:80", "192.168.0.7", 80, False),
        ("localhost.example.com:80", "localhost.example.com", 80, False),
        ("127.0.0.1.example.com:80", "127.0.0.1.example.com", 80, False),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int | None, loopback: bool) -> None:
    address = parse_address(text)
    assert address == Address(host, port)
    assert address.target == text == str(address)
    assert address.is_loopback is loopback


@pytest.mark.parametrize(
    "text",
    ["", "localhost", ":80", "localhost:", "localhost:http", "localhost:65536", "::1:80",
     "localhost:-1", "localhost:٨", "unix:", "[::1]"],
)  # fmt: skip
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="for example localhost:50051"):
        parse_address(text)


def test_port_0_becomes_the_port_that_was_given() -> None:
    assert parse_address("[::1]:0").with_port(77).target == "[::1]:77"
    assert parse_address("unix:/s").with_port(1) == Address("/s", None)
