"""`midstream edge`: running heads here and tails on a server."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from midstream.cli import console
from midstream.cli.adaptive import run_adaptive
from midstream.cli.driving import Driving, takes_driving
from midstream.cli.options import (
    Input,
    Json,
    Model,
    Planning,
    Runs,
    Seed,
    Slowdown,
    Threads,
    takes_feed,
    takes_link,
    takes_planning,
)
from midstream.cli.outcomes import outcome_table, verdict
from midstream.cli.plan import FROM_BPS, TO_BPS, print_plan, read_profile
from midstream.cli.security import Authority, Certificate, Insecure, Key, Token, dial_of
from midstream.deployment import Deployment, deploy, open_session
from midstream.documents import candidate_document, plan_document
from midstream.sources import open_inputs, open_partition
from midstream_edge.answers import Answer
from midstream_edge.channel import Dial
from midstream_edge.session import EdgeSession
from midstream_edge.trial import Outcome, Strategy, adopt, baselines, run_trial
from midstream_partitioner.chain import Chain
from midstream_partitioner.envelope import Envelope, envelope_of
from midstream_partitioner.feed import Feed
from midstream_partitioner.link import Link
from midstream_partitioner.partition import Partition
from midstream_partitioner.plan import Constraints, Plan, Planner
from midstream_partitioner.units import parse_duration
from midstream_wire.errors import CloudUnavailable, DeadlineExceeded, PlanError, UsageError
from midstream_wire.tensors import Array

#: Distinct inputs under a policy, which may send requests for hours; they come in turn.
DISTINCT = 64

app = typer.Typer(help="Run heads here, tails in the cloud.", no_args_is_help=True)


@takes_feed
@takes_link
@takes_planning
@takes_driving
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
    input: Input = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests to send.")] = 10,
    seed: Seed = 0,
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name on the server.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Profile of this edge; measured if not given.")
    ] = None,
    runs: Runs = 20,
    cut: Annotated[
        str | None, typer.Option(help="Use this cut (its id) instead of planning.")
    ] = None,
    codec: Annotated[str, typer.Option(help="With --cut: the codec.")] = "raw",
    segments: Annotated[
        int | None, typer.Option(min=0, help="Hold only the first segments, to save memory.")
    ] = None,
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Compile the plan's head into one piece.")
    ] = False,
    fuse_after: Annotated[
        int,
        typer.Option(
            min=0,
            help="Do so, in the background, for a head that so many requests in a row have "
            "run; 0: never.",
        ),
    ] = 0,
    timeout: Annotated[
        str | None,
        typer.Option(help="How long the cloud may take; 3 times the prediction, at least 5s."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run the plan and all baselines, check answers.")
    ] = False,
    threads: Threads = 1,
    slowdown: Slowdown = 1.0,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
    token_file: Token = None,
    insecure: Insecure = False,
    json: Json = False,
    json_line: Annotated[
        bool, typer.Option("--json-line", hidden=True, help="The document on one line.")
    ] = False,
) -> None:
    """Plan over the measured link, run the head here, have the tail run on the server.

    The link is measured first unless it is given. Whatever happens to the server or the link,
    every request is answered: what the cloud does not finish is finished here, and said so.
    """
    timeout_s = parse_duration(timeout) if timeout is not None else None
    print_document = console.print_json_line if json_line else console.print_json
    quiet = json or json_line

    def run_alone() -> None:
        part, document = _run_alone(
            model, feed, input, requests, seed, threads=threads, slowdown=slowdown, quiet=quiet
        )
        if quiet:
            print_document({"model": part.name, "server": None, **document, "plan": None})

    _check_flags(server, compare=compare, cut=cut, segments=segments, driving=driving)
    if server is None:
        run_alone()
        return
    dial = dial_of(server, ca=ca, cert=cert, key=key, token_file=token_file, insecure=insecure)
    with ExitStack() as stack:
        try:
            with console.progress("agreeing with the server and profiling") as tick:
                deployment = deploy(
                    model, dial, feed=feed, model=name, threads=threads, slowdown=slowdown,
                    segments=segments, runs=runs, profile=read_profile(profile), inputs=input,
                    codecs=planning.constraints.codecs if cut is None else (codec,),
                    progress=tick,
                )  # fmt: skip
            session = stack.enter_context(open_session(deployment, dial))
            link = link or session.measure_link()
        except (CloudUnavailable, DeadlineExceeded) as error:
            if segments is not None or compare:
                raise
            console.say(f"running everything here: {error}", to=console.err)
            run_alone()
            return
        part = deployment.partition
        count = requests if driving is None else min(requests, DISTINCT)
        inputs = open_inputs(part, input, count=count, seed=seed)
        planner = _planner(deployment, planning)
        made = planner.plan(link)
        rows = envelope_of(planner, link, from_bps=FROM_BPS, to_bps=TO_BPS)
        if cut is not None:
            made = _forced(deployment, link, cut, codec)
        if not quiet:
            print_plan(made, rows, title=_title(deployment, dial))
        if fuse:
            deployment.chain.fuse(0, made.chosen.k)
        deployment.chain.fuse_stable(fuse_after)
        if driving is not None:
            document = run_adaptive(
                session, deployment, planner, link, inputs,
                dial=dial, constraints=planning.constraints,
                driving=driving, requests=requests, quiet=quiet,
            )  # fmt: skip
        elif compare:
            document = _compare(session, deployment, planning, made, rows, inputs, requests)
            if not quiet:
                _print_outcomes(document)
        else:
            adopt(session, made.chosen)
            if timeout_s is not None:
                session.use(*session.plan, timeout_s=timeout_s)
            document = _run(session, inputs, part, quiet=quiet)
            document["plan"] = plan_document(made, rows)
    if quiet:
        print_document({"model": part.name, "server": server, **document})


app.command(
    epilog=console.examples(
        "midstream edge run resnet18 --server localhost:50051 --input photos/",
        "midstream edge run net.midstream --server cloud:50051 --ca ca.pem --private",
        "midstream edge run resnet18 --server localhost:50051 --adaptive --duration 60s",
    )
)(run)
# A group with a single command would otherwise swallow its name.
app.callback()(lambda: None)


def _check_flags(
    server: str | None,
    *,
    compare: bool,
    cut: str | None,
    segments: int | None,
    driving: Driving | None,
) -> None:
    alone = server is None
    if alone and (compare or driving or cut is not None or segments is not None):
        raise UsageError(
            "--compare, --adaptive, --cut and --segments need a server: give --server as well"
        )
    if driving is not None and (compare or cut is not None):
        raise UsageError(
            "--adaptive chooses anew for every request: leave --compare and --cut out, or "
            "name a policy such as fixed:CUT:CODEC"
        )
    if compare and segments is not None:
        raise UsageError(
            "--compare runs every placement, for which the edge must hold all segments: "
            "leave --segments out"
        )


def _planner(deployment: Deployment, planning: Planning) -> Planner:
    return Planner(
        deployment.partition,
        deployment.edge,
        deployment.cloud,
        objective=planning.objective,
        constraints=planning.constraints,
        calibration=deployment.calibration,
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


def _run(
    session: EdgeSession, inputs: Sequence[dict[str, Array]], part: Partition, *, quiet: bool
) -> dict[str, Any]:
    """Send all inputs, pipelined; tell each answer as it comes."""
    answers: list[dict[str, Any]] = []

    def tell(answer: Answer) -> None:
        if not quiet:
            _print_answer(len(answers), answer, part)
        answers.append(_answer_document(len(answers), answer, part))

    pending: deque[Future[Answer]] = deque()
    for sample in inputs:
        pending.append(session.submit(sample))  # waits while too many are under way
        while pending and pending[0].done():
            tell(pending.popleft().result())
    for future in pending:
        tell(future.result())
    stats = session.stats
    if not quiet:
        console.say(
            f"{len(answers)} answers: {stats.cloud} from the cloud, {stats.edge} from the "
            f"edge, {stats.fallback} finished on the edge because the cloud failed"
        )
    return {"requests": len(inputs), "answered": len(answers), "local": stats.fallback,
            "answers": answers}  # fmt: skip


def _run_alone(
    model: str,
    feed: Feed | None,
    source: str | None,
    requests: int,
    seed: int,
    *,
    threads: int,
    slowdown: float,
    quiet: bool,
) -> tuple[Partition, dict[str, Any]]:
    """Everything on this device, no server."""
    part = open_partition(model, feed=feed)
    chain = Chain(part, threads=threads, slowdown=slowdown)
    inputs = open_inputs(part, source, count=requests, seed=seed)
    with EdgeSession(chain, None, plan=(chain.last, "raw")) as session:
        return part, _run(session, inputs, part, quiet=quiet)


def _answer_document(number: int, answer: Answer, part: Partition) -> dict[str, Any]:
    return {
        "input": number,
        "where": answer.where,
        "reason": answer.reason,
        "cut": part.cuts[answer.k].id,
        "codec": answer.codec,
        "payload_nbytes": answer.payload_nbytes,
        "timings": answer.timings.to_dict(),
        "top": {name: _top(array, part) for name, array in answer.outputs.items()},
    }


def _top(array: Array, part: Partition) -> list[dict[str, Any]] | None:
    """The five largest entries of a row of scores, None for any other output."""
    if array.ndim != 2 or array.shape[0] != 1 or array.dtype.kind != "f":
        return None
    labels = part.feed.labels
    best = np.argsort(array[0])[::-1][:5]
    return [
        {
            "index": int(at),
            "label": labels[at] if at < len(labels) else None,
            "score": float(array[0, at]),
        }
        for at in best
    ]


def _print_answer(number: int, answer: Answer, part: Partition) -> None:
    words = []
    for name, array in answer.outputs.items():
        top = _top(array, part)
        first = (
            "x".join(map(str, array.shape))
            if top is None
            else (top[0]["label"] or f"class {top[0]['index']}")
        )
        words.append(f"{name}: {first}")
    total = console.ms(answer.timings.total_s)
    where = answer.where if answer.reason is None else f"{answer.where} ({answer.reason})"
    console.say(f"{number:4}  {', '.join(words)}  {total} ms  {where}")


def _compare(
    session: EdgeSession,
    deployment: Deployment,
    planning: Planning,
    made: Plan,
    rows: Envelope,
    inputs: Sequence[dict[str, Array]],
    requests: int,
) -> dict[str, Any]:
    """Run every strategy in turn; the document says what was predicted and what came."""
    private = _private(deployment, planning, made.link)
    strategies = list(baselines(made))
    known = [strategy.candidate for strategy in strategies]
    if private is not None and private.chosen not in known:
        strategies.append(Strategy("private plan", private.chosen))
    distinct = inputs[: min(len(inputs), 8)]
    with console.progress("requests") as tick:
        outcomes = run_trial(session, strategies, distinct, requests=requests, progress=tick)
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
