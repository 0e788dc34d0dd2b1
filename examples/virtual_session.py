"""A session in virtual time: a link that is cut for five seconds, without waiting for it.

python examples/virtual_session.py
"""

from __future__ import annotations

from collections import Counter

from midstream.testing import (
    FakeCloud,
    VirtualClock,
    VirtualLink,
    VirtualSession,
    make_placement,
)


def main() -> None:
    clock = VirtualClock()
    link = VirtualLink(uplink_bps=8e6, downlink_bps=8e6, rtt_s=0.04, outages=[(20.0, 5.0)])
    session = VirtualSession(
        clock, FakeCloud(clock), link, [make_placement(head_s=0.01, rest_s=0.2)], timeout_s=1.0
    )
    for number in range(240):
        session.submit(at_s=number / 4, deadline_s=0.5)
    clock.run()
    late = sum(each.latency_s > 0.5 for each in session.outcomes)
    wheres = Counter(each.where for each in session.outcomes)
    print(f"a minute of requests: {dict(wheres)}, {late} later than their deadline")


if __name__ == "__main__":
    main()
