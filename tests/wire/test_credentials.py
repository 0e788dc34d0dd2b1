"""Plaintext stays on loopback, tokens are compared whole, and bad files are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstream_wire.address import parse_address
from midstream_wire.credentials import (
    bearer,
    channel_tls,
    is_bearer,
    load_token,
    require_safe,
    server_tls,
)
from midstream_wire.errors import UsageError

_PEM = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("text", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/s"])
def test_plaintext_is_allowed_on_loopback(text: str) -> None:
    require_safe(parse_address(text), tls=False, token=True, insecure=False)


@pytest.mark.parametrize(
    ("token", "reason"), [(False, "plaintext is allowed on loopback only"), (True, "a token")]
)
def test_plaintext_elsewhere_is_refused_unless_asked_for(token: bool, reason: str) -> None:
    address = parse_address("0.0.0.0:1")
    with pytest.raises(UsageError, match=f"{reason}.*0.0.0.0:1.*--insecure"):
        require_safe(address, tls=False, token=token, insecure=False)
    require_safe(address, tls=True, token=token, insecure=False)
    require_safe(address, tls=False, token=token, insecure=True)


def test_a_token_is_read_without_the_white_space_around_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret-token\n")
    assert load_token(tmp_path / "token") == "s3cret-token"


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"t\xc3\xbcr", b"a\nb"])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(UsageError, match="must hold one word"):
        load_token(tmp_path / "token")


def test_only_the_same_token_is_accepted() -> None:
    assert is_bearer(bearer("abc"), "abc")
    assert not is_bearer(bearer("abcd"), "abc")
    assert not is_bearer((), "abc")
    assert not is_bearer((("authorization", "abc"),), "abc")
    assert not is_bearer((*bearer("abc"), *bearer("abc")), "abc")
    assert not is_bearer((("authorization", "Bearer \u00fc"),), "abc")


def test_files_that_are_missing_or_no_pem_are_named(tmp_path: Path) -> None:
    pem, text = tmp_path / "good.pem", tmp_path / "bad.pem"
    pem.write_text(_PEM)
    text.write_text("not a certificate")
    with pytest.raises(UsageError, match=r"missing.pem: no such file"):
        server_tls(certificate=tmp_path / "missing.pem", key=pem)
    with pytest.raises(UsageError, match=r"server key .*bad.pem must be a PEM file"):
        server_tls(certificate=pem, key=text)
    with pytest.raises(UsageError, match=r"certificate authority .*bad.pem"):
        channel_tls(authority=text)
    with pytest.raises(UsageError, match="give both or neither"):
        channel_tls(certificate=pem)
