"""`midstream edge`: running heads here and tails on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, final

import typer

from midstream.cli.flags.applicable import effective
from midstream.cli.flags.common import Execution, Json, Model, Size, takes_execution
from midstream.cli.flags.edge_run import (
    Holding,
    PlanFlags,
    Subject,
    Workload,
    takes_choice,
    takes_holding,
    takes_workload,
)
from midstream.cli.flags.feed import takes_feed
from midstream.cli.flags.planning import Planning, takes_link, takes_planning
from midstream.cli.flags.policy import Driving, takes_driving
from midstream.cli.flags.security import Trust, takes_trust
from midstream.cli.opening import opened_partition
from midstream.cli.output import console
from midstream.cli.output.outcomes import outcome_table, verdict
from midstream.cli.output.plan_table import FROM_BPS, TO_BPS, print_plan
from midstream.cli.runs.adaptive import Following, run_adaptive
from midstream.cli.runs.answers import Answering, send_all, takes_answering
from midstream.deployment import Deployment, EdgeSetup, EdgeSide, begin_session
from midstream.discovery import Discovery
from midstream.documents import candidate_document, plan_document
from midstream.feeding import Feeding
from midstream.joining import Joining
from midstream.loaders import Inputs
from midstream_edge.link.endpoint import CONNECT_S, Endpoint
from midstream_edge.session.session import EdgeSession
from midstream_edge.workload.comparison import (
    Contender,
    Outcome,
    adopt,
    contenders_of,
    run_trial,
)
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.codec_spec import family_of
from midstream_partitioner.costs.link import Link
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.envelope import Envelope, envelope_of
from midstream_partitioner.planning.plan import Plan
from midstream_partitioner.planning.planner import Planner
from midstream_wire.errors import (
    CloudUnavailable,
    DeadlineExceeded,
    PeerError,
    PlanError,
    UsageError,
)

#: Distinct inputs under a policy, which may send requests for hours; they come in turn.
DISTINCT = 64
#: The same where placements are compared, and each is run whole here as well.
COMPARED = 8


@final
@dataclass(frozen=True, slots=True)
class _Reached:
    """A server that was agreed with, and the link to it."""

    endpoint: Endpoint
    deployment: Deployment
    session: EdgeSession
    link: Link


@final
@dataclass(frozen=True, slots=True)
class _Opened:
    """A session with a server, and how to agree with that; `link` is known once it is there.

    Until then `side` is what the edge holds alone.
    """

    endpoint: Endpoint
    side: EdgeSide | Deployment
    session: EdgeSession
    link: Link | None
    agree: Callable[[], Deployment]
    error: PeerError | DeadlineExceeded | None = None

    @contextmanager
    def reached(self, begin: Callable[[_Reached], None]) -> Iterator[Joining | None]:
        """Call `begin` once the server is there: at once, or beside what is done meanwhile."""
        if isinstance(self.side, Deployment) and self.link is not None:
            begin(_Reached(self.endpoint, self.side, self.session, self.link))
            yield None
            return

        def join(deployment: Deployment) -> None:
            link = self.link or self.session.measure_link()
            begin(_Reached(self.endpoint, deployment, self.session, link))

        with Joining(self.session, agree=self.agree, begin=join) as joining:
            yield joining


app = typer.Typer(help="Run heads here, tails in the cloud.", no_args_is_help=True)


@takes_feed
@takes_link
@takes_planning
@takes_driving
@takes_workload
@takes_answering
@takes_choice
@takes_holding
@takes_execution
@takes_trust
def run(
    model: Model,
    feed: Feeding,
    link: Link | None,
    planning: Planning,
    driving: Driving | None,
    server: Annotated[
        str | None,
        typer.Option(help="Address of the cloud, host:port. Default: none, all runs here."),
    ] = None,
    *,
    workload: Workload,
    answering: Answering,
    choice: PlanFlags,
    holding: Holding,
    execution: Execution,
    trust: Trust,
    size: Size = None,
    json: Json = False,
    json_line: Annotated[
        bool,
        typer.Option("--json-line", hidden=True, help="Print the JSON document on one line."),
    ] = False,
) -> None:
    """Plan over the measured link, run the head here, have the tail run on the server.

    The link is measured first unless it is given. Whatever happens to the server or the link,
    every request is answered: what the cloud does not finish is finished here, and said so. A
    server that cannot be reached yet is used as soon as it can.
    """
    quiet, backend = json or json_line, execution.open()
    with ExitStack() as stack:
        if server is None:
            part = opened_partition(model, feed=feed, size=size, like=workload.input)
            document = _run_alone(
                part, workload, holding, backend=backend, answering=answering, quiet=quiet
            )
        else:
            codecs = planning.constraints.codecs if choice.cut is None else (choice.codec,)
            limit = None if choice.compare else planning.constraints.max_edge_nbytes
            setup = holding.setup(
                inputs=workload.input, codecs=codecs, backend=backend, within_nbytes=limit
            )
            opened = _open(
                stack, trust.endpoint(server), setup, Subject(model, holding.name, feed, size),
                link=link, must=choice.compare or holding.segments is not None,
            )  # fmt: skip
            document = {"model": opened.side.partition.name, "server": server}
            document |= _run_split(
                opened, planning, driving, choice,
                holding=holding, workload=workload, answering=answering, quiet=quiet,
            )  # fmt: skip
            if not choice.compare:
                document |= _from_cloud(opened)
    if json_line:
        console.print_json_line(document)
    elif json:
        console.print_json(document)
    if document.get("cloud_error") is not None:
        told = f"no answer came from the cloud: {document['cloud_error']}"
        if choice.require_cloud:
            raise CloudUnavailable(told)
        console.say(told, to=console.err)


def _open(
    stack: ExitStack,
    endpoint: Endpoint,
    setup: EdgeSetup,
    subject: Subject,
    *,
    link: Link | None,
    must: bool,
) -> _Opened:
    """Agree with the server and open a session; alone for now where it cannot be reached.

    Raises what `deploy` does: a server that `must` be there and is not, or one that is there
    and does not fit.
    """
    agree: Callable[..., Deployment]
    agree = ask = partial(subject.deploy, endpoint, setup)
    away: list[PeerError | DeadlineExceeded] = []

    def tell(error: PeerError | DeadlineExceeded) -> None:
        if must:
            raise error
        away.append(error)
        console.say(f"answering alone until the cloud can be reached: {error}", to=console.err)

    side: EdgeSide | Deployment
    held = models = None
    try:
        if not must:
            discovery = Discovery(endpoint)
            models = discovery.glance()
            if models is None:  # what has to be done here in any case is done meanwhile
                held = subject.hold(setup)
                models = discovery.result()
        side = agree(held=held, models=models)
    except (CloudUnavailable, DeadlineExceeded) as error:
        tell(error)
        side = held = held or subject.hold(setup)
        agree = partial(ask, held=held)
    patience_s = 0.0 if away else CONNECT_S
    session = stack.enter_context(begin_session(side, endpoint, patience_s=patience_s))
    if isinstance(side, Deployment):
        deployment = side
        agree = lambda: deployment  # noqa: E731  (nothing is left to be asked)
        try:
            link = link or session.measure_link()
        except (CloudUnavailable, DeadlineExceeded) as error:
            tell(error)
    return _Opened(endpoint, side, session, link, agree, away[0] if away else None)


def _from_cloud(opened: _Opened) -> dict[str, Any]:
    """Return how many answers came from the cloud, and why none did."""
    stats = opened.session.stats
    if stats.cloud:
        return {"cloud": stats.cloud, "cloud_error": None}
    why = opened.session.link_error or opened.error
    if stats.fallback == stats.hedges == 0 and opened.session.connected:
        why = None
    return {
        "cloud": 0,
        "cloud_error": str(why or "what was planned for these requests ran on the edge"),
    }


app.command(
    epilog=console.examples(
        "midstream edge run resnet18 --server localhost:50051 --input photos/",
        "midstream edge run net.midstream --server cloud:50051 --ca ca.pem --private",
        "midstream edge run net.onnx --input photos/ --output answers.jsonl --top 3",
        "midstream edge run resnet18 --server localhost:50051 --adaptive --duration 60s",
    )
)(effective("edge run", run))
# A group with a single command would otherwise swallow its name.
app.callback()(lambda: None)


def _run_alone(
    part: Partition,
    workload: Workload,
    holding: Holding,
    *,
    backend: Backend,
    answering: Answering,
    quiet: bool,
) -> dict[str, Any]:
    """Everything on this device, no server."""
    chain = Chain(part, threads=holding.threads, slowdown=holding.slowdown, backend=backend)
    inputs = workload.stream(part, every_once=answering.output is not None)
    with EdgeSession(chain, None, plan=(chain.last, "raw")) as session:
        sent = send_all(session, inputs, part, answering=answering, quiet=quiet)
    return {
        "model": part.name, "server": None, **sent, "plan": None,
        "cloud": 0, "cloud_error": None,
    }  # fmt: skip


def _run_split(
    opened: _Opened,
    planning: Planning,
    driving: Driving | None,
    choice: PlanFlags,
    *,
    holding: Holding,
    workload: Workload,
    answering: Answering,
    quiet: bool,
) -> dict[str, Any]:
    """Plan, then send the requests as they were asked for: under a policy, under every
    placement in turn, or under the plan."""
    session, part = opened.session, opened.side.partition
    if (
        driving is None or not driving.repartition
    ):  # which may find cuts that are not there yet
        planning.constraints.check_forbidden(part)
    plans: list[tuple[_Reached, Plan, Envelope]] = []

    def begin(reached: _Reached) -> None:
        made, rows = _plan(reached, planning, choice)
        if not quiet:
            print_plan(made, rows, title=_title(reached.deployment, reached.endpoint))
        holding.fuse_head(reached.deployment.chain, made.chosen.k)
        plans.append((reached, made, rows))
        if driving is not None:
            course.begin(
                reached.deployment, _planner(reached.deployment, planning), reached.link
            )
            return
        adopt(session, made.chosen)
        if choice.timeout_s is not None:
            session.use(*session.plan, timeout_s=choice.timeout_s)

    if driving is not None:
        inputs = workload.open(part, distinct=DISTINCT)
        course = Following(session, opened.endpoint, inputs[0], driving, planning.constraints)
        return run_adaptive(
            session, opened.side, inputs,
            course=course, reached=opened.reached(begin),
            driving=driving, requests=workload.count, answering=answering, quiet=quiet,
        )  # fmt: skip
    with opened.reached(begin):
        if choice.compare:
            inputs = workload.open(part, distinct=COMPARED)
            document = _compare(*plans[0], planning, inputs, workload.count)
            if not quiet:
                _print_outcomes(document)
            return document
        requests = workload.stream(part, every_once=answering.output is not None)
        sent = send_all(session, requests, part, answering=answering, quiet=quiet)
    return {**sent, "plan": plan_document(*plans[0][1:]) if plans else None}


def _plan(reached: _Reached, planning: Planning, choice: PlanFlags) -> tuple[Plan, Envelope]:
    """The plan for the link as it is, or the one that was asked for, and its envelope."""
    deployment, link = reached.deployment, reached.link
    planner = _planner(deployment, planning)
    for _, refusal in deployment.refused:
        console.say(refusal, to=console.err)
    if planner.told:
        console.note(planner.told)
    made = planner.plan(link)
    rows = envelope_of(planner, link, from_bps=FROM_BPS, to_bps=TO_BPS)
    if choice.cut is not None:
        made = _forced(deployment, link, choice.cut, choice.codec)
    return made, rows


def _planner(deployment: Deployment, planning: Planning) -> Planner:
    return Planner(
        deployment.partition,
        deployment.edge,
        deployment.cloud,
        objective=planning.objective,
        constraints=deployment.allowed(planning.constraints),
    )


def _forced(deployment: Deployment, link: Link, cut: str, codec: str) -> Plan:
    """The plan that the user asked for, with its prediction."""
    known = [each.id for each in deployment.partition.cuts]
    if cut not in known:
        raise UsageError(f"--cut must be one of {', '.join(known)} (not {cut!r})")
    refused = dict(deployment.refused).get(family_of(codec))
    if refused is not None:
        raise PlanError(refused)
    made = _planner(deployment, Planning(constraints=Constraints(codecs=(codec,)))).plan(link)
    for candidate in made.candidates:
        if candidate.cut == cut:
            return replace(made, chosen=candidate, runner_up=None)
    raise UsageError(
        f"the codec {codec} must take what crosses {cut}, and the edge hold all segments "
        "before it; one of these does not hold: name another cut or codec"
    )


def _title(deployment: Deployment, endpoint: Endpoint) -> str:
    edge, cloud = deployment.edge.device.label(), deployment.cloud.device.label()
    return f"{deployment.partition.name}: edge {edge}, cloud {cloud} at {endpoint.address}"


def _compare(
    reached: _Reached,
    made: Plan,
    rows: Envelope,
    planning: Planning,
    inputs: Inputs,
    requests: int,
) -> dict[str, Any]:
    """Run every placement in turn; the document says what was predicted and what came."""
    deployment = reached.deployment
    private = _private(deployment, planning, made.link)
    contenders = list(contenders_of(made))
    known = [contender.candidate for contender in contenders]
    if private is not None and private.chosen not in known:
        contenders.append(Contender("private plan", private.chosen))
    with console.progress("requests") as tick:
        outcomes = run_trial(
            reached.session, contenders, inputs, requests=requests, progress=tick
        )
    return {
        "edge": deployment.edge.device.to_dict(),
        "cloud": deployment.cloud.device.to_dict(),
        "requests": requests,
        "answered": min(len(outcome.latencies_s) for outcome in outcomes),
        "local": sum(outcome.local for outcome in outcomes),
        "max_relative_error": max(outcome.max_relative_error for outcome in outcomes),
        **plan_document(made, rows),
        "private": candidate_document(private.chosen) if private is not None else None,
        "placements": [_outcome_document(outcome, made, private) for outcome in outcomes],
    }


def _private(deployment: Deployment, planning: Planning, link: Link) -> Plan | None:
    """Return what the plan would be if the input might not leave the edge."""
    constraints = replace(
        planning.constraints, min_depth=max(1, planning.constraints.min_depth)
    )
    try:
        return _planner(deployment, replace(planning, constraints=constraints)).plan(link)
    except PlanError:
        return None


def _outcome_document(outcome: Outcome, made: Plan, private: Plan | None) -> dict[str, Any]:
    candidate = outcome.contender.candidate
    return {
        **outcome.to_dict(),
        "is_chosen": candidate == made.chosen,
        "is_private_choice": private is not None and candidate == private.chosen,
    }


def _print_outcomes(document: dict[str, Any]) -> None:
    console.show(outcome_table(document, f"{document['requests']} requests each"))
    console.say(verdict(document))
