"""Resets that a host believes: their bytes, and when a cut link sends them."""

from __future__ import annotations

import socket
import struct

import pytest

from midstream_lab.emulation.model.outages import MOST_FLOWS, Breaker, Cut
from midstream_lab.emulation.model.packets import (
    ACK,
    FIN,
    RST,
    SYN,
    checksum,
    completed,
    flow,
    is_tcp,
    next_sequence,
    payload_nbytes,
    refusal,
    reset,
    reverse,
)

EDGE, CLOUD = ("10.77.0.1", 40000), ("10.77.0.2", 443)


def segment(
    source: tuple[str, int] = EDGE,
    destination: tuple[str, int] = CLOUD,
    *,
    sequence: int = 1000,
    acknowledged: int = 5000,
    bits: int = ACK,
    payload: bytes = b"",
) -> bytes:
    tcp = struct.pack(
        "!HHIIBBHHH", source[1], destination[1], sequence, acknowledged, 0x50, bits, 999, 0, 0
    )
    ends = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    length = 40 + len(payload)
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, length, 7, 0x4000, 64, 6, 0) + ends + tcp + payload
    )


def fields(packet: bytes) -> tuple[int, int, int]:
    """Sequence, acknowledgement, flags."""
    return (*struct.unpack_from("!II", packet, 24), packet[33])


def test_a_reset_is_these_bytes() -> None:
    assert reset(flow(segment()), 0x01020304).hex() == (
        "45000028" "00004000" "400626" "34" "0a4d0001" "0a4d0002"
        "9c4001bb" "01020304" "00000000" "50040000"
    ) + reset(flow(segment()), 0x01020304)[36:].hex()  # fmt: skip


def test_checksums_add_up_to_nothing() -> None:
    for packet in (reset(flow(segment()), 7), completed(segment(payload=b"odd"))):
        if packet[33] & RST:
            assert checksum(packet[:20]) == 0
        pseudo = packet[12:20] + struct.pack("!HH", 6, len(packet) - 20)
        assert checksum(pseudo + packet[20:]) == 0


def test_the_internet_checksum_of_the_example_in_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF


def test_a_syn_is_refused_as_by_a_host_without_a_listener() -> None:
    answer = refusal(segment(bits=SYN, sequence=0xFFFFFFFF, acknowledged=0))
    assert answer is not None
    assert flow(answer) == reverse(flow(segment()))
    assert fields(answer) == (0, 0, RST | ACK)


def test_a_segment_is_refused_with_the_number_that_its_sender_expects() -> None:
    answer = refusal(segment(acknowledged=77, payload=b"data"))
    assert answer is not None
    assert fields(answer) == (77, 0, RST)


def test_a_reset_is_never_answered() -> None:
    assert refusal(segment(bits=RST)) is None
    assert refusal(segment(bits=RST | ACK)) is None


def test_syn_and_fin_count_as_a_byte_each_and_numbers_wrap() -> None:
    assert next_sequence(segment(sequence=5, bits=SYN)) == 6
    assert next_sequence(segment(sequence=5, bits=FIN | ACK, payload=b"xy")) == 8
    assert next_sequence(segment(sequence=0xFFFFFFFF, payload=b"xy")) == 1


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        segment()[:39],
        b"\x60" + segment()[1:],
        segment()[:9] + b"\x11" + segment()[10:],
        segment()[:6] + b"\x20\x00" + segment()[8:],
    ],
    ids=["empty", "short", "IPv6", "UDP", "fragment"],
)
def test_what_is_no_whole_tcp_segment_is_neither_passed_nor_answered(packet: bytes) -> None:
    assert not is_tcp(packet)
    breaker = Breaker()
    breaker.cut("refuse")
    assert breaker.answer(packet) == (False, [])


def test_a_black_hole_tells_nobody() -> None:
    breaker = Breaker()
    breaker.note_sent(segment(payload=b"data"))
    assert breaker.cut("black-hole") == []
    assert breaker.answer(segment(bits=SYN)) == (False, [])
    assert breaker.answer(segment(payload=b"data")) == (False, [])


@pytest.mark.parametrize("kind", ["reset", "refuse"])
def test_a_cut_resets_both_ends_at_every_number_they_may_expect(kind: Cut) -> None:
    breaker = Breaker()
    breaker.note_sent(segment(sequence=1000, acknowledged=5000, payload=b"on its way"))
    breaker.note_sent(segment(CLOUD, EDGE, sequence=5000, acknowledged=1000, payload=b"12"))
    breaker.note_arrived(segment(CLOUD, EDGE, sequence=5000, acknowledged=1000, payload=b"12"))
    resets = breaker.cut(kind)
    assert all(packet[33] == RST for packet in resets)
    to_edge = {fields(each)[0] for each in resets if each[16:20] == socket.inet_aton(EDGE[0])}
    to_cloud = {fields(each)[0] for each in resets} - to_edge
    assert to_edge == {5000, 5002}  # its acknowledgement of the two bytes may be delayed
    assert to_cloud == {1000}
    assert breaker.cut(kind) == []


def test_reset_lets_hands_be_shaken_and_breaks_what_carries_data() -> None:
    breaker = Breaker()
    breaker.cut("reset")
    for bits in (SYN, SYN | ACK, ACK, RST):
        assert breaker.answer(segment(bits=bits)) == (True, [])
    passes, resets = breaker.answer(segment(sequence=11, acknowledged=22, payload=b"data"))
    assert not passes
    back, onward = resets
    assert (flow(back), fields(back)[0]) == (reverse(flow(segment())), 22)
    assert (flow(onward), fields(onward)[0]) == (flow(segment()), 11)


def test_refuse_answers_a_syn_and_passes_nothing() -> None:
    breaker = Breaker()
    breaker.cut("refuse")
    passes, resets = breaker.answer(segment(bits=SYN))
    assert (passes, len(resets)) == (False, 1)


def test_flows_are_forgotten_before_they_fill_the_memory() -> None:
    breaker = Breaker()
    for port in range(3 * MOST_FLOWS):
        breaker.note_arrived(segment(("10.77.0.1", port + 1), CLOUD))
    assert len(breaker.cut("reset")) <= MOST_FLOWS


def test_payload_is_what_follows_the_headers() -> None:
    assert payload_nbytes(segment(payload=b"12345")) == 5
