"""Outages of a link: silent, with resets, or with refusals. A function of packets seen."""

from __future__ import annotations

from typing import Final, Literal, final, get_args

from midstream_lab.emulation.model.packets import (
    ACK,
    RST,
    SYN,
    expected,
    flags,
    flow,
    is_tcp,
    next_sequence,
    payload_nbytes,
    refusal,
    reset,
    reverse,
)

Cut = Literal["black-hole", "reset", "refuse"]
CUTS: Final[tuple[Cut, ...]] = get_args(Cut)
#: Flows remembered; older ones come back with their next packet.
MOST_FLOWS = 1024


@final
class Breaker:
    """The fate of packets while the link is cut, and of the connections when it is.

    "black-hole": nothing passes, nobody is told. "reset": connections are reset, and new ones
    as soon as they carry data. "refuse": connections are reset, new ones refused, as by a host
    on which nothing listens. Nothing but TCP passes in any of them.
    """

    def __init__(self) -> None:
        self.kind: Cut | None = None
        self._sent: dict[bytes, bytes] = {}  # flow -> latest packet its source sent
        self._arrived: dict[bytes, bytes] = {}  # flow -> latest packet its destination got

    def note_sent(self, packet: bytes) -> None:
        self._sent[packet[12:24]] = packet

    def note_arrived(self, packet: bytes) -> None:
        arrived = self._arrived
        arrived[packet[12:24]] = packet
        if len(arrived) > MOST_FLOWS:
            for notes in (arrived, self._sent):
                for key in list(notes)[: len(notes) // 2]:
                    del notes[key]

    def cut(self, kind: Cut) -> list[bytes]:
        """Cut the link; returns the resets that both ends of every connection get."""
        self.kind = kind
        resets = [] if kind == "black-hole" else self._resets()
        self._sent.clear()
        self._arrived.clear()
        return resets

    def restore(self) -> None:
        self.kind = None

    def answer(self, packet: bytes) -> tuple[bool, list[bytes]]:
        """While cut: whether the packet may pass, and the resets it is answered with."""
        if self.kind == "black-hole" or not is_tcp(packet):
            return False, []
        bits = flags(packet)
        if self.kind == "reset":
            shakes_hands = bits & SYN or (bits == ACK and payload_nbytes(packet) == 0)
            if shakes_hands or bits & RST:
                return True, []
            resets = [reset(flow(packet), int.from_bytes(packet[24:28]))]  # to the other end
        else:
            resets = []
        back = refusal(packet)
        return False, resets if back is None else [back, *resets]

    def _resets(self) -> list[bytes]:
        """To either end of every flow, at every sequence number it may be expecting.

        What its latest packet acknowledged, and what follows the latest that it got: these
        differ while an acknowledgement is delayed.
        """
        wanted: set[tuple[bytes, int]] = set()
        for key, packet in self._sent.items():
            known = expected(packet) if is_tcp(packet) else None
            if known is not None:
                wanted.add((reverse(key), known))
        for key, packet in self._arrived.items():
            if is_tcp(packet):
                wanted.add((key, next_sequence(packet)))
        return [reset(key, sequence) for key, sequence in sorted(wanted)]
