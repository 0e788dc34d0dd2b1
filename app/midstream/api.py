"""The Python face: the same things as the command line, in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from midstream import loaders as sources
from midstream.deployment import EdgeSide, explained
from midstream.feeding import Feeding
from midstream.joining import follow
from midstream.serving import make_repository, measure_chain
from midstream_cloud.server import Settings, serving
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.policies.interface import Policy
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.probe_budget import ProbeBudget, parse_budget
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.backends.by_name import open_backend
from midstream_partitioner.codec_spec import full_id
from midstream_partitioner.costs.calibration import Calibration
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.costs.size_spans import checked_sizes
from midstream_partitioner.execution.chain import ONNXRUNTIME, Chain
from midstream_partitioner.graph.cuts import Cut
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition import cutting
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.plan import Plan
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.profiling import calibrator as calibrating
from midstream_partitioner.profiling.dataset import read_data
from midstream_partitioner.units import parse_duration, parse_rate
from midstream_wire.credentials import trust
from midstream_wire.errors import UsageError

#: What runs segments: `backend(provider="openvino")`, `backend("torch", device="cuda")`.
backend = open_backend


def load(
    source: sources.Source,
    *,
    feed: Feed | None = None,
    sizes: Mapping[str, int | Sequence[int] | str] | None = None,
    like: str | Path | None = None,
) -> Network:
    """Load a model: a reference model's name, an ONNX file, its bytes, or a ModelProto.

    `feed` says what feeds it; without it a TOML file beside the model is looked for. Where the
    network leaves dimensions open, figures are for `sizes`, such as {"height": 480}, or over
    several, {"height": "240..960"}, or for those of the first input in `like`, a file. Raises
    `UsageError` when there is no such thing and `ModelError` when it cannot be cut.
    """
    return sources.open_network(
        source, feed=Feeding(feed), sizes=checked_sizes(sizes or {}), like=like
    )


def partition(
    source: sources.Source | Network,
    *,
    cuts: Iterable[Cut] | None = None,
    feed: Feed | None = None,
    sizes: Mapping[str, int | Sequence[int] | str] | None = None,
    like: str | Path | None = None,
    public: Iterable[str] = (),
) -> Partition:
    """Cut `source` once into a chain of segments, or open the partition in a folder.

    Without `cuts`, at the places that can ever win, chosen by arithmetic alone: the same on
    every machine. `feed`, `sizes` and `like` are as in `load`, which has taken them already
    where `source` is a `Network`.
    `public` names inputs that are no secret, as a mask, beside those of the
    feed; where to cut depends on it, so that a server must be told the same.
    """
    public = tuple(public)
    if not isinstance(source, Network):
        known = checked_sizes(sizes or {})
        if cuts is None and not public:
            return sources.open_partition(source, feed=Feeding(feed), sizes=known, like=like)
        source = sources.open_network(source, feed=Feeding(feed), sizes=known, like=like)
    elif feed is not None or sizes or like is not None:
        raise UsageError("a loaded model has its feed and sizes: give them to `load`")
    if public:
        named = dict.fromkeys((*source.feed.public, *public))
        source = replace(source, feed=replace(source.feed, public=tuple(named)))
    return cutting.partition(source, sources.default_cuts(source) if cuts is None else cuts)


def inputs(
    part: Partition, source: str | Path | None = None, *, count: int = 1, seed: int = 0
) -> sources.Inputs:
    """Return `count` inputs, each a dict of arrays by name; random ones without a `source`.

    `source` is a picture, a folder of pictures, an .npz or an .npy file.
    """
    return sources.open_inputs(part, str(source) if source else None, count=count, seed=seed)


def calibrate(
    part: Partition,
    data: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    metric: str | None = None,
    codecs: Iterable[str] | None = None,
    count: int = 512,
) -> Calibration:
    """Return what codecs at the cuts of `part` do to its answers, on `count` samples.

    `data` is a picture, a folder of pictures, an .npz, an .npy or "python:module:function";
    without it only sizes mean anything. `labels` and `metric` say what accuracy is, as they do
    for `midstream calibrate`. Without `codecs`, the whole ladder. Profiles and plans take the
    result.
    """
    source = read_data(
        part,
        str(data) if data else None,
        labels=str(labels) if labels else None,
        count=count,
    )
    return calibrating.calibrate(
        Chain(part),
        source,
        codecs=None if codecs is None else [full_id(each) for each in codecs],
        metric=sources.open_metric(metric),
    )


def profile(
    part: Partition,
    *,
    calibration: Calibration | None = None,
    threads: int = 1,
    slowdown: float = 1.0,
    runs: int = 20,
    backend: Backend = ONNXRUNTIME,
) -> Profile:
    """Measure the segments of `part` and the codecs at its cuts on this machine.

    All codecs that `calibration` knows are among them: the partition's own, unless another is
    given. `backend` runs the segments, and the profile says so.
    """
    if calibration is not None:
        part = replace(part, calibration=calibration)
    chain = Chain(part, threads=threads, slowdown=slowdown, backend=backend, weigh=True)
    return measure_chain(chain, runs=runs)


def link(uplink: str, *, downlink: str | None = None, rtt: str = "0ms") -> Link:
    """Return a link from quantities with units: `link("8Mbit", rtt="40ms")`."""
    rate_bps = parse_rate(uplink)
    return Link(rate_bps, parse_rate(downlink) if downlink else rate_bps, parse_duration(rtt))


@contextmanager
def serve(
    models: Partition | Mapping[str, Partition],
    *,
    address: str = "127.0.0.1:0",
    threads: int = 1,
    slowdown: float = 1.0,
    settings: Settings | None = None,
    profile: Profile | None = None,
    backend: Backend = ONNXRUNTIME,
) -> Iterator[str]:
    """Run a cloud server in a thread of this process, and yield its address.

    For servers of their own use `midstream cloud serve`. The models get no profile, but the
    only one the `profile` that is given: plan with one that you measured.
    """
    named: Mapping[str, Partition] = (
        {models.name: models} if isinstance(models, Partition) else models
    )
    repository = make_repository(
        named, threads=threads, slowdown=slowdown, runs=0, profile=profile, backend=backend
    )
    with serving(repository, address, settings=settings) as bound:
        yield bound.target


def menu(part: Partition, edge: Profile, cloud: Profile) -> Menu:
    """Return what a policy may choose from, for an edge that holds all of `part`."""
    return Menu.of(Planner(part, edge, cloud), complete=True)


def connect(
    part: Partition,
    server: str | None,
    plan: Plan | tuple[int, str] | None = None,
    *,
    policy: str | Policy | Callable[[Menu], Policy] | None = None,
    edge: Profile | None = None,
    cloud: Profile | None = None,
    probe_budget: str | None = None,
    ca: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
    token: str | None = None,
    insecure: bool = False,
    threads: int = 1,
    slowdown: float = 1.0,
    backend: Backend = ONNXRUNTIME,
) -> EdgeSession:
    """Open an edge session: heads here, tails on `server`, as `plan` or `policy` says.

    `plan` is a plan or (segments on the edge, codec); without one everything runs here until
    `use` says otherwise. `policy` chooses for every request: a name ("adaptive"), a `Policy`
    over the menu that `menu` gives, or what makes one of a menu. It needs the profiles of both
    sides: `edge` is measured and `cloud` asked of the server where they are not given.
    `probe_budget` is the most that is sent to ask a silent link: "50MB/day", which is the
    default, or "0" for nothing.

    `ca`, `cert` and `key` are PEM files: the authority of the server's certificate, and this
    side's for mutual TLS. With one of them the link is TLS, else plaintext, which leaves this
    machine only if `insecure`. `token` is the bearer token.

    The server finds the partition by its digest, whatever it calls it. One that cannot be
    reached yet is used as soon as it can. A context manager.
    """
    if probe_budget is not None and policy is None:
        raise UsageError("a budget for probes is of a policy: give one, or leave it out")
    probes = None
    if probe_budget is not None:
        probes = ProbeBudget(day_nbytes=parse_budget(probe_budget))
    chain = Chain(part, threads=threads, slowdown=slowdown, backend=backend)
    endpoint = None
    if server is not None:
        tls = trust(*(Path(each) if each else None for each in (ca, cert, key)))
        endpoint = Endpoint.of(server, tls=tls, token=token, insecure=insecure)
    if policy is not None:
        if plan is not None or endpoint is None:
            raise UsageError(
                "a policy chooses for every request, with a server: give the address of one, "
                "and no plan"
            )
        side = EdgeSide(part, part.name, chain, edge or measure_chain(chain))
        with explained(part, endpoint):
            return follow(side, endpoint, policy, cloud=cloud, probes=probes)
    if isinstance(plan, Plan):
        plan = (plan.chosen.k, plan.chosen.codec)
    with explained(part, endpoint):
        return EdgeSession(chain, endpoint, plan=plan or (chain.last, "raw"))
