"""`midstream edge`: running heads here and tails on a server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated, Any, final

import typer

from midstream.cli import console
from midstream.cli.adaptive import run_adaptive
from midstream.cli.answers import send_all
from midstream.cli.driving import Driving, takes_driving
from midstream.cli.flags import effective
from midstream.cli.options import (
    Json,
    Model,
    Planning,
    takes_feed,
    takes_link,
    takes_planning,
)
from midstream.cli.outcomes import outcome_table, verdict
from midstream.cli.plan import FROM_BPS, TO_BPS, print_plan
from midstream.cli.running import (
    Choice,
    Holding,
    Workload,
    takes_choice,
    takes_holding,
    takes_workload,
)
from midstream.cli.security import Trust, takes_trust
from midstream.deployment import Deployment, open_session
from midstream.documents import candidate_document, plan_document
from midstream.sources import open_partition
from midstream_edge.channel import Dial
from midstream_edge.session import EdgeSession
from midstream_edge.trial import Outcome, Strategy, adopt, baselines, run_trial
from midstream_partitioner.chain import Chain
from midstream_partitioner.envelope import Envelope, envelope_of
from midstream_partitioner.feed import Feed
from midstream_partitioner.link import Link
from midstream_partitioner.plan import Constraints, Plan, Planner
from midstream_wire.errors import CloudUnavailable, DeadlineExceeded, PlanError, UsageError
from midstream_wire.tensors import Array

#: Distinct inputs under a policy, which may send requests for hours; they come in turn.
DISTINCT = 64


@final
@dataclass(frozen=True, slots=True)
class _Reached:
    """A server that was agreed with, and the link to it."""

    dial: Dial
    deployment: Deployment
    session: EdgeSession
    link: Link


app = typer.Typer(help="Run heads here, tails in the cloud.", no_args_is_help=True)


@takes_feed
@takes_link
@takes_planning
@takes_driving
@takes_workload
@takes_choice
@takes_holding
@takes_trust
def run(
    model: Model,
    feed: Feed | None,
    link: Link | None,
    planning: Planning,
    driving: Driving | None,
    server: Annotated[
        str | None,
        typer.Option(help="The cloud's address, host:port; without it everything runs here."),
    ] = None,
    *,
    workload: Workload,
    choice: Choice,
    holding: Holding,
    trust: Trust,
    json: Json = False,
    json_line: Annotated[
        bool, typer.Option("--json-line", hidden=True, help="The document on one line.")
    ] = False,
) -> None:
    """Plan over the measured link, run the head here, have the tail run on the server.

    The link is measured first unless it is given. Whatever happens to the server or the link,
    every request is answered: what the cloud does not finish is finished here, and said so.
    """
    quiet = json or json_line
    reached = None
    with ExitStack() as stack:
        if server is not None:
            dial = trust.dial(server)
            codecs = planning.constraints.codecs if choice.cut is None else (choice.codec,)
            try:
                deployment = holding.deploy(
                    model, dial, feed=feed, inputs=workload.input, codecs=codecs
                )
                session = stack.enter_context(open_session(deployment, dial))
                reached = _Reached(dial, deployment, session, link or session.measure_link())
            except (CloudUnavailable, DeadlineExceeded) as error:
                if holding.segments is not None or choice.compare:
                    raise
                console.say(f"running everything here: {error}", to=console.err)
        if reached is None:
            document = _run_alone(model, feed, workload, holding, quiet=quiet)
        else:
            document = {"model": reached.deployment.partition.name, "server": server}
            document |= _run_split(
                reached, planning, driving, choice,
                holding=holding, workload=workload, quiet=quiet,
            )  # fmt: skip
    if json_line:
        console.print_json_line(document)
    elif json:
        console.print_json(document)


app.command(
    epilog=console.examples(
        "midstream edge run resnet18 --server localhost:50051 --input photos/",
        "midstream edge run net.midstream --server cloud:50051 --ca ca.pem --private",
        "midstream edge run resnet18 --server localhost:50051 --adaptive --duration 60s",
    )
)(effective("edge run", run))
# A group with a single command would otherwise swallow its name.
app.callback()(lambda: None)


def _run_alone(
    model: str, feed: Feed | None, workload: Workload, holding: Holding, *, quiet: bool
) -> dict[str, Any]:
    """Everything on this device, no server."""
    part = open_partition(model, feed=feed)
    chain = Chain(part, threads=holding.threads, slowdown=holding.slowdown)
    inputs = workload.open(part)
    with EdgeSession(chain, None, plan=(chain.last, "raw")) as session:
        sent = send_all(session, inputs, part, quiet=quiet)
    return {"model": part.name, "server": None, **sent, "plan": None}


def _run_split(
    reached: _Reached,
    planning: Planning,
    driving: Driving | None,
    choice: Choice,
    *,
    holding: Holding,
    workload: Workload,
    quiet: bool,
) -> dict[str, Any]:
    """Plan, then send the requests as they were asked for: under a policy, under every
    strategy in turn, or under the plan."""
    deployment, session, link = reached.deployment, reached.session, reached.link
    part = deployment.partition
    inputs = workload.open(part, distinct=None if driving is None else DISTINCT)
    planner = _planner(deployment, planning)
    made = planner.plan(link)
    rows = envelope_of(planner, link, from_bps=FROM_BPS, to_bps=TO_BPS)
    if choice.cut is not None:
        made = _forced(deployment, link, choice.cut, choice.codec)
    if not quiet:
        print_plan(made, rows, title=_title(deployment, reached.dial))
    holding.fuse_head(deployment.chain, made.chosen.k)
    if driving is not None:
        return run_adaptive(
            session, deployment, planner, link, inputs,
            dial=reached.dial, constraints=planning.constraints,
            driving=driving, requests=workload.requests, quiet=quiet,
        )  # fmt: skip
    if choice.compare:
        document = _compare(reached, planning, made, rows, inputs, workload.requests)
        if not quiet:
            _print_outcomes(document)
        return document
    adopt(session, made.chosen)
    if choice.timeout_s is not None:
        session.use(*session.plan, timeout_s=choice.timeout_s)
    sent = send_all(session, inputs, part, quiet=quiet)
    return {**sent, "plan": plan_document(made, rows)}


def _planner(deployment: Deployment, planning: Planning) -> Planner:
    return Planner(
        deployment.partition,
        deployment.edge,
        deployment.cloud,
        objective=planning.objective,
        constraints=planning.constraints,
    )


def _forced(deployment: Deployment, link: Link, cut: str, codec: str) -> Plan:
    """The plan that the user asked for, with its prediction."""
    known = [each.id for each in deployment.partition.cuts]
    if cut not in known:
        raise UsageError(f"--cut must be one of {', '.join(known)} (not {cut!r})")
    made = _planner(deployment, Planning(constraints=Constraints(codecs=(codec,)))).plan(link)
    for candidate in made.candidates:
        if candidate.cut == cut:
            return replace(made, chosen=candidate, runner_up=None)
    raise UsageError(
        f"the codec {codec} must take what crosses {cut}, and the edge hold all segments "
        "before it; one of these does not hold: name another cut or codec"
    )


def _title(deployment: Deployment, dial: Dial) -> str:
    edge, cloud = deployment.edge.device.label(), deployment.cloud.device.label()
    return f"{deployment.partition.name}: edge {edge}, cloud {cloud} at {dial.address}"


def _compare(
    reached: _Reached,
    planning: Planning,
    made: Plan,
    rows: Envelope,
    inputs: Sequence[dict[str, Array]],
    requests: int,
) -> dict[str, Any]:
    """Run every strategy in turn; the document says what was predicted and what came."""
    deployment = reached.deployment
    private = _private(deployment, planning, made.link)
    strategies = list(baselines(made))
    known = [strategy.candidate for strategy in strategies]
    if private is not None and private.chosen not in known:
        strategies.append(Strategy("private plan", private.chosen))
    distinct = inputs[: min(len(inputs), 8)]
    with console.progress("requests") as tick:
        outcomes = run_trial(
            reached.session, strategies, distinct, requests=requests, progress=tick
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
        "strategies": [_outcome_document(outcome, made, private) for outcome in outcomes],
    }


def _private(deployment: Deployment, planning: Planning, link: Link) -> Plan | None:
    """What the plan would be if the input might not leave the edge."""
    constraints = replace(
        planning.constraints, min_depth=max(1, planning.constraints.min_depth)
    )
    try:
        return _planner(deployment, replace(planning, constraints=constraints)).plan(link)
    except PlanError:
        return None


def _outcome_document(outcome: Outcome, made: Plan, private: Plan | None) -> dict[str, Any]:
    candidate = outcome.strategy.candidate
    return {
        **outcome.to_dict(),
        "is_chosen": candidate == made.chosen,
        "is_private_choice": private is not None and candidate == private.chosen,
    }


def _print_outcomes(document: dict[str, Any]) -> None:
    console.show(outcome_table(document, f"{document['requests']} requests each"))
    console.say(verdict(document))
