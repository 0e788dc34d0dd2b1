"""Do predictions hold at sizes that were not measured, and does each size get its best plan?

    python benchmarks/sizes.py [--models text,unet] [--files FOLDER] [--links lte,...]
    python benchmarks/sizes.py --laws        # how far several laws miss between the buckets
    python benchmarks/sizes.py --decisions   # microseconds per decision at changing sizes
    python benchmarks/sizes.py --exact       # answers of many cuts beside the unsplit one's

A network is profiled at the buckets of its spanned sizes. Then requests of four sizes, none of
them a bucket, go over four emulated links to a server in this process, by every placement: the
plan for that size, edge-only, and cloud-only raw. The edge is an emulated one, several times
slower. `--files` is a folder with PaddleOCR's
ch_PP-OCRv4_det_infer.onnx and ch_PP-OCRv4_rec_infer.onnx (PyPI rapidocr-onnxruntime 1.4.4).
Targets: mean absolute error of the predicted total at most 7 %, the worst 20 %. On a machine
that others use, "undisturbed" compares the tenths of runs that were disturbed least, of
placements that run nothing on the emulated edge, which waits for its pace.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any, final

import numpy as np
from sizes_subjects import Subject, subjects

import midstream
from midstream.loaders import at_sizes, open_buckets, open_inputs, open_network, open_partition
from midstream.serving import measure_chain
from midstream_edge.policies.interface import Situation
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.registry import policy
from midstream_edge.session.session import EdgeSession
from midstream_lab.emulation.proxy.proxy import ProxyThread, parse_address
from midstream_lab.traces.conditions import condition
from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.compare import relative_error
from midstream_partitioner.costs.curves import Curve
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.costs.size_spans import parse_sizes
from midstream_partitioner.costs.sizes import Sizes, bind_sizes, listed
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import EDGE_ONLY, position_cuts
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.plan import Candidate
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.profiling.buckets import profile_sizes
from midstream_partitioner.profiling.rounds import PAUSE_S

#: Runs of each segment at each bucket.
RUNS = 20

#: Placements that would take longer than this are not run: nobody would choose them.
TOO_LONG_S = 1.0


def bound(part: Partition, asked: dict[str, int]) -> Sizes:
    """All sizes of a request: those asked for, and the feed's or what is assumed."""
    (usual,) = open_inputs(part, None, count=1)
    return tuple(sorted((dict(bind_sizes(part.inputs, usual)) | asked).items()))


def placements(planner: Planner, link: Link) -> Iterator[tuple[str, Candidate]]:
    """The plan, and the trivial placements where they are something else."""
    made = planner.plan(link)
    yield "plan", made.chosen
    for candidate in made.candidates:
        trivial = candidate.cut == EDGE_ONLY or (candidate.k, candidate.codec) == (0, "raw")
        if trivial and candidate is not made.chosen and candidate.latency_s < TOO_LONG_S:
            yield candidate.label, candidate


def run(subject: Subject, options: argparse.Namespace) -> list[tuple[str, float]]:
    """One network over all links and sizes; the error of every placement."""
    part = open_partition(subject.build(), sizes=parse_sizes([subject.spans]))
    asked = [bound(part, each) for each in subject.asked]
    every = measured(part, asked)
    paces_s = {
        b.sizes: [options.slowdown * s.median_s for s in b.segments] for b in every.buckets
    }
    found = without(every, asked)
    planner = Planner(part, found.slowed(options.slowdown), found)
    calm = quiet(found)
    undisturbed = Planner(part, calm.slowed(options.slowdown), calm)
    print(f"{subject.name}: {len(part.segments)} segments, buckets "
          f"{'; '.join(listed(each) for each in Curve(found).sizes)}")  # fmt: skip
    rows = []
    with midstream.serve(part) as server:
        for name in options.links.split(","):
            there = condition(name)
            with (
                ProxyThread(parse_address(server), there) as proxy,
                midstream.connect(
                    part, "{}:{}".format(*proxy.address), slowdown=options.slowdown
                ) as session,
            ):
                trials = [
                    Trial(
                        at, kind, candidate, priced(undisturbed.at(at), candidate, there.link)
                    )
                    for at in asked
                    for kind, candidate in placements(planner.at(at), there.link)
                ]
                take_turns(session, part, trials, paces_s, options.requests)
            rows += report(there.link, trials)
    return rows


@final
@dataclass
class Trial:
    """One placement at one size, with what its requests took.

    `quiet_s` is predicted from the tenth of each segment's runs that was disturbed least.
    """

    sizes: Sizes
    kind: str
    candidate: Candidate
    quiet_s: float
    taken_s: list[float] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Of the medians."""
        return self.candidate.latency_s / median(self.taken_s) - 1

    @property
    def quiet_error(self) -> float:
        """The same of runs that nothing disturbs: the law's and the link's error."""
        return self.quiet_s / float(np.percentile(self.taken_s, 10)) - 1


def measured(part: Partition, asked: Sequence[Sizes]) -> Profile:
    """Buckets and the sizes asked for between them, all timed in turn."""
    samples = list(open_buckets(part, None))
    for sizes in asked:
        samples += open_inputs(at_sizes(part, sizes), None, count=1, seed=7)
    return profile_sizes(Chain(part), samples, this_device(), runs=RUNS)


def without(every: Profile, asked: Sequence[Sizes]) -> Profile:
    """What of `every` was measured at the buckets."""
    first, *others = (bucket for bucket in every.buckets if bucket.sizes not in asked)
    return every.holding(first, others)


def quiet(found: Profile) -> Profile:
    """`found`, with the tenth percentile of every segment's time as its median."""
    first, *others = (
        replace(b, segments=tuple(replace(s, median_s=s.low_s) for s in b.segments))
        for b in found.buckets
    )
    return found.holding(first, others)


def priced(planner: Planner, like: Candidate, link: Link) -> float:
    """Seconds of the placement of `like`, by another planner."""
    return next(
        float(placement.estimate(link, 0.0).total_s)
        for placement in planner.allowed
        if (placement.k, placement.codec) == (like.k, like.codec)
    )


def take_turns(
    session: EdgeSession,
    part: Partition,
    trials: Sequence[Trial],
    paces_s: Mapping[Sizes, Sequence[float]],
    requests: int,
) -> None:
    """So many requests of every trial, one at a time in turn, after one that does not count.

    Each has a pause before it, as in profiles. What disturbs the machine for a while thus
    disturbs all trials alike. The emulated edge keeps the pace that was measured at the very
    size, which its predictions know nothing of.
    """
    inputs = {
        sizes: open_inputs(at_sizes(part, sizes), None, count=1, seed=7)[0]
        for sizes in {trial.sizes for trial in trials}
    }
    for done in range(-1, requests):
        for trial in trials:
            session.use(trial.candidate.k, trial.candidate.codec, timeout_s=60.0)
            session.chain.keep_pace(paces_s[trial.sizes])
            time.sleep(PAUSE_S)
            seen_s = session.infer(inputs[trial.sizes]).timings.total_s
            if done >= 0:
                trial.taken_s.append(seen_s)


def report(link: Link, trials: Sequence[Trial]) -> list[tuple[str, float]]:
    rows = []
    best_s: dict[Sizes, float] = {}
    for trial in trials:
        seen_s = median(trial.taken_s)
        best_s[trial.sizes] = min(seen_s, best_s.get(trial.sizes, seen_s))
        rows.append((trial.kind, trial.error))
        calm = ""
        if not trial.candidate.k:
            rows.append(("quiet", trial.quiet_error))
            calm = f", undisturbed {trial.quiet_error:+.1%}"
        told_s = trial.candidate.latency_s
        print(f"  {link.uplink_bps / 1e6:6.1f} Mbit/s  {listed(trial.sizes):52} "
              f"{trial.kind:15} {trial.candidate.label[:30]:30} {1e3 * told_s:7.1f} ms told "
              f"{1e3 * seen_s:7.1f} measured {trial.error:+.1%}{calm}",
              flush=True)  # fmt: skip
    rows += [
        ("regret", median(trial.taken_s) / best_s[trial.sizes] - 1)
        for trial in trials
        if trial.kind == "plan"
    ]
    return rows


def summarise(name: str, rows: Sequence[tuple[str, float]]) -> None:
    calm = [abs(error) for kind, error in rows if kind == "quiet"]
    errors = [abs(error) for kind, error in rows if kind not in ("quiet", "regret")]
    regrets = [regret for kind, regret in rows if kind == "regret"]
    print(f"{name}: {len(errors)} predictions, mean error {mean(errors):.1%}, worst "
          f"{max(errors):.1%}; undisturbed {mean(calm):.1%}, {max(calm):.1%}; the plan "
          f"against the best of those run: mean {mean(regrets):+.1%}, worst "
          f"{max(regrets):+.1%}", flush=True)  # fmt: skip


def laws(subject: Subject) -> None:
    """The time of the whole network between its buckets, told by several laws.

    Buckets and the sizes between them are timed in turn; the tenth of the runs that was
    disturbed least is told from that of the buckets.
    """
    part = open_partition(subject.build(), sizes=parse_sizes([subject.spans]))
    asked = [bound(part, each) for each in subject.asked]
    every = quiet(measured(part, asked))
    seen_s = {b.sizes: sum(s.median_s for s in b.segments) for b in every.buckets}
    known = without(every, asked)
    curve = Curve(known)
    told: dict[str, Callable[[Sizes], float]] = {
        "sum of powers": lambda sizes: curve.at(sizes).segments_s(0, len(part.segments)),
        "powers between": lambda sizes: _between(known, sizes, np.log, np.exp),
        "straight lines": lambda sizes: _between(known, sizes, lambda x: x, lambda x: x),
    }
    for name, law in told.items():
        errors = [law(sizes) / seen_s[sizes] - 1 for sizes in asked]
        shown = "  ".join(f"{error:+.1%}" for error in errors)
        print(f"{subject.name:10} {name:16} {shown}   mean {mean(map(abs, errors)):.1%}",
              flush=True)  # fmt: skip


def exact(subject: Subject) -> None:
    """Every answer at some 24 cuts, one chain for all sizes, beside the unsplit network's."""
    network = open_network(subject.build(), sizes=parse_sizes([subject.spans]))
    every = position_cuts(network.graph)
    part = partition(network, every[:: max(1, len(every) // 24)])
    chain = Chain(part)
    whole = Executor(network.model.SerializeToString())
    alike, off = True, 0.0
    for sizes in (bound(part, each) for each in subject.asked):
        (inputs,) = open_inputs(at_sizes(part, sizes), None, count=1, seed=7)
        expected = whole.run(inputs)
        answers = [
            chain.run(chain.run(inputs, 0, k), k, chain.last) for k in range(chain.last + 1)
        ]
        off = max(off, relative_error(expected, answers[0]))
        for name in expected:
            alike &= all(np.array_equal(a[name], answers[0][name]) for a in answers)
    count = len(subject.asked)
    print(f"{subject.name:10} {len(part.cuts)} of {len(every)} cuts, {count} sizes: "
          f"{'the same bits at every cut' if alike else 'OTHER BITS'}, "
          f"{off:.1e} from the unsplit network", flush=True)  # fmt: skip


def _between(found: Profile, sizes: Sizes, there: Any, back: Any) -> float:
    """Interpolated over the product of the sizes, where buckets lie on a diagonal as well."""
    known = {float(np.prod([n for _, n in b.sizes])): sum(s.median_s for s in b.segments)
             for b in found.buckets}  # fmt: skip
    products = sorted(known)
    at = float(np.prod([size for _, size in sizes]))
    return float(
        back(np.interp(there(at), there(products), there([known[p] for p in products])))
    )


def decisions(subject: Subject) -> None:
    """How long a policy takes at sizes that it has seen, and at others."""
    part = open_partition(subject.build(), sizes=parse_sizes([subject.spans]))
    found = measure_chain(Chain(part), runs=3)
    menu = Menu.of(Planner(part, found.slowed(8.0), found), complete=True)
    asked = policy("adaptive", menu, link=Link(1e7, 1e7, 0.02), device=found.device)
    names = [name for name, low_high in part.feed.spans if low_high]
    fresh = [bound(part, dict.fromkeys(names, 40 + 3 * n)) for n in range(200)]
    rng = np.random.default_rng(0)
    for kind, sizes in (
        ("new", fresh),
        ("seen", [fresh[at] for at in rng.integers(0, len(fresh), 4000)]),
        ("fixed", [()] * 4000),
    ):
        taken_s = []
        for each in sizes:
            started_s = time.perf_counter()
            asked.decide(Situation(0.0, sizes=each))
            taken_s.append(time.perf_counter() - started_s)
        p50, p90, p99 = 1e6 * np.percentile(taken_s, [50, 90, 99])
        print(f"{subject.name:10} {len(menu):3} placements  {kind:6} p50 {p50:7.1f}  "
              f"p90 {p90:7.1f}  p99 {p99:7.1f} us", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="")
    parser.add_argument("--files", type=Path)
    parser.add_argument("--links", default="lte,20Mbit:40ms,50Mbit:20ms,100Mbit:10ms")
    parser.add_argument("--slowdown", type=float, default=4.0)
    parser.add_argument("--requests", type=int, default=7)
    parser.add_argument("--laws", action="store_true")
    parser.add_argument("--decisions", action="store_true")
    parser.add_argument("--exact", action="store_true")
    options = parser.parse_args()
    wanted = options.models.split(",") if options.models else None
    every = []
    for subject in subjects(options.files):
        if wanted is not None and subject.name not in wanted:
            continue
        if options.laws:
            laws(subject)
        elif options.exact:
            exact(subject)
        elif options.decisions:
            decisions(subject)
        else:
            rows = run(subject, options)
            summarise(subject.name, rows)
            every += rows
    if every:
        summarise("all", every)


if __name__ == "__main__":
    main()
