"""Who counts as one peer, by what gRPC says of a call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from midstream_cloud.calls import peer_of, peer_of_session


def _call(peer: str, **auth: list[bytes]) -> Any:
    return SimpleNamespace(peer=lambda: peer, auth_context=lambda: auth)


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("ipv4:192.0.2.7:51000", "192.0.2.7"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:51000", "192.0.2.7"),
        ("ipv6:%5B2001:db8:0:1::7%5D:51000", "2001:db8:0:1::/64"),
        ("ipv6:[2001:db8:0:1:ffff::8]:51001", "2001:db8:0:1::/64"),
        ("ipv6:%5B2001:db8:0:2::7%5D:51000", "2001:db8:0:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:51000", "fe80::/64"),
        ("ipv4:127.0.0.1:51000", "ipv4:127.0.0.1:51000"),
        ("ipv4:127.0.0.2:51000", "ipv4:127.0.0.2:51000"),
        ("ipv6:%5B::1%5D:51000", "ipv6:%5B::1%5D:51000"),
        ("ipv6:%5B::ffff:127.0.0.1%5D:51000", "ipv6:%5B::ffff:127.0.0.1%5D:51000"),
        ("unix:", "unix:"),
        ("", ""),
        ("ipv4:nonsense", "ipv4:nonsense"),
    ],
)
def test_a_peer_is_a_host_and_on_this_machine_a_connection(peer: str, name: str) -> None:
    assert peer_of(_call(peer)) == name


def test_a_certificate_tells_more_than_an_address() -> None:
    call = _call("ipv4:127.0.0.1:51000", x509_common_name=[b"edge 1"])
    assert peer_of(call) == "certificate:edge 1"


def test_sessions_of_a_unix_socket_count_one_by_one_and_others_by_their_peer() -> None:
    local, distant = _call("unix:"), _call("ipv4:192.0.2.7:51000")
    assert len({peer_of_session(local, serial) for serial in range(5)}) == 5
    assert {peer_of_session(distant, serial) for serial in range(5)} == {"192.0.2.7"}
    told = _call("unix:", x509_common_name=[b"edge 1"])
    assert {peer_of_session(told, serial) for serial in range(5)} == {"certificate:edge 1"}
