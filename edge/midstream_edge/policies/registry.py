"""Policies by the names that people give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from midstream_edge.policies.adaptive import Adaptive
from midstream_edge.policies.bandit import LinUcb
from midstream_edge.policies.baselines import Ewma, Fixed, Follower, Harmonic, Periodic
from midstream_edge.policies.interface import Policy
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.oracle import Curve, Oracle
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.python_names import import_function, installed, load_installed
from midstream_partitioner.units import parse_duration
from midstream_wire.errors import UsageError

#: What may be asked for, with what it does.
POLICIES: Mapping[str, str] = {
    "adaptive": "least expected cost under the belief, hedged when the cloud is late",
    "adaptive-nohedge": "the same without hedging",
    "adaptive-race": "the same, the edge running the rest from the start",
    "race": "cloud-only with its best codec, racing edge-only",
    "fixed:CUT:CODEC": "always one placement",
    "edge-only": "never the cloud",
    "cloud-only": "always the raw input; cloud-only:CODEC sends it encoded",
    "periodic:5s": "the best plan for the bandwidth measured last, every so long",
    "ewma": "the best placement at a moving average of the bandwidth",
    "harmonic": "the best placement at a careful harmonic mean (RobustMPC)",
    "linucb": "a bandit that tries placements (Autodidactic Neurosurgeon)",
    "oracle": "the best placement on the true bandwidth, which only an emulator knows",
    "python:MODULE:NAME": "your own: NAME(menu, link=..., device=...) returns a policy",
}

#: Where installed packages announce policies of their own, by name.
ENTRY_POINTS = "midstream.policies"

#: Seconds between two plans of "periodic", where it does not say.
PERIOD_S = 5.0


def policy(
    text: str,
    menu: Menu,
    *,
    link: Link,
    device: Device,
    curve: Curve | None = None,
    belief: LinkBelief | None = None,
) -> Policy:
    """Make the policy called `text`, which starts from a first measurement of the link.

    One of ours starts from `belief` instead, where another has formed it before. Raises
    `UsageError` for an unknown name, for a placement that the menu does not have, and for
    "oracle" without a `curve`.
    """
    name, _, detail = text.strip().partition(":")
    belief = belief or LinkBelief.of(link)
    match name:
        case "adaptive" if not detail:
            return Adaptive(menu, belief, device)
        case "adaptive-nohedge" if not detail:
            return Adaptive(menu, belief, device, "never")
        case "adaptive-race" if not detail:
            return Adaptive(menu, belief, device, "race")
        case "race" if not detail:
            return Fixed(text, menu, _best_cloud_only(menu, belief), belief, racing=True)
        case "fixed" if detail:
            return Fixed(text, menu, _named(menu, detail), belief)
        case "edge-only" if not detail:
            return Fixed(text, menu, menu.find(EDGE_ONLY), belief)
        case "cloud-only":
            return Fixed(text, menu, menu.find(CLOUD_ONLY, detail or "raw"), belief)
        case "periodic":
            every_s = parse_duration(detail) if detail else PERIOD_S
            return Follower(text, menu, belief, Periodic(link.uplink_bps, every_s))
        case "ewma" if not detail:
            return Follower(text, menu, belief, Ewma(link.uplink_bps))
        case "harmonic" if not detail:
            return Follower(text, menu, belief, Harmonic((link.uplink_bps,)))
        case "linucb" if not detail:
            return LinUcb.of(menu, belief)
        case "oracle" if not detail and curve is not None:
            return Oracle(menu, belief, curve)
        case "oracle" if not detail:
            raise UsageError(
                "the policy oracle must know the true bandwidth: run it over an emulated link "
                "that follows a trace, and name the trace"
            )
        case "python" if detail:
            return _own(text, import_function(text), menu, link, device)
    if text in (announced := installed(ENTRY_POINTS)):
        return _own(text, load_installed("policy", announced[text]), menu, link, device)
    raise _unknown(text)


def policy_heads() -> Mapping[str, str]:
    """Return all that may be asked for, by what stands before the first colon."""
    heads = {name.partition(":")[0]: name for name in POLICIES}
    return heads | {name: name for name in installed(ENTRY_POINTS)}


def _own(
    text: str, factory: Callable[..., Any], menu: Menu, link: Link, device: Device
) -> Policy:
    """Return what a user's function makes, once it is known to be a policy."""
    try:
        made = factory(menu, link=link, device=device)
    except Exception as error:  # whatever the user's function raises
        raise UsageError(
            f"{text} must return a policy, and raised {type(error).__name__}: {error}"
        ) from None
    if not isinstance(made, Policy) or not isinstance(made.name, str):
        raise UsageError(
            f"{text} must return a policy, with decide, learn and a name (not "
            f"{type(made).__name__}): docs/how-to/write-a-policy.md has one"
        )
    return made


def _named(menu: Menu, detail: str) -> int:
    """CUT or CUT:CODEC; a codec's own parameters follow another colon, "jpeg:90"."""
    cut, _, codec = detail.partition(":")
    return menu.find(cut, codec or None)


def _best_cloud_only(menu: Menu, belief: LinkBelief) -> int:
    """Sending the input, or the earliest cut there is where it must not be sent."""
    totals_s = menu.totals_s(belief.conditions())
    remote = [index for index, placement in enumerate(menu.placements) if placement.remote]
    if not remote:
        raise UsageError(
            "racing needs a placement that uses the cloud, and the constraints leave none: "
            "loosen them"
        )
    earliest = min(menu.placements[index].k for index in remote)
    first = [index for index in remote if menu.placements[index].k == earliest]
    return min(first, key=lambda index: float(totals_s[index]))


def _unknown(text: str) -> UsageError:
    close = get_close_matches(text, [name.partition(":")[0] for name in POLICIES], n=1)
    hint = f": did you mean {close[0]}?" if close else ""
    return UsageError(
        f"a policy must be one of {', '.join(POLICIES)} (not {text!r}){hint or ': choose one'}"
    )
