"""The Python face: what is public, that it is documented and typed, and README's example."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib
import inspect
import re
import socket
import subprocess
import sys
import time
import types
import typing
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import midstream
from midstream_cloud.server import Settings
from midstream_edge.session.director import PolicyDirector
from midstream_partitioner.compare import EXACT, relative_error
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.profiling.fit_transforms import fit_transforms
from midstream_wire.credentials import server_tls
from midstream_wire.errors import UsageError

if TYPE_CHECKING:
    from tests.app.conftest import Environment, Ran

ROOT = Path(__file__).resolve().parents[2]


def test_the_public_names_are_sorted_and_complete() -> None:
    """Those that type checkers see, each loaded from its home when it is asked for."""
    source = Path(midstream.__file__).read_text()
    (seen,) = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    assert dir(midstream) == midstream.__all__ == sorted(homes)
    for name, home in homes.items():
        assert getattr(midstream, name) is getattr(importlib.import_module(str(home)), name)
    with pytest.raises(AttributeError, match="has no attribute 'frobnicate'"):
        _ = midstream.frobnicate


@pytest.mark.parametrize("name", midstream.__all__)
def test_a_public_name_is_documented_by_hand(name: str) -> None:
    value = getattr(midstream, name)
    said = value.__doc__ or ""
    assert len(said) > 20
    assert not said.startswith(f"{name}("), "that is what a dataclass writes by itself"
    if inspect.isclass(value):
        silent = [
            f"{name}.{each}"
            for each, member in vars(value).items()
            if not each.startswith("_")
            and isinstance(member, types.FunctionType | property | classmethod | staticmethod)
            and not inspect.getdoc(getattr(value, each))
            and each not in WELL_KNOWN
        ]
        assert silent == []


#: Methods whose names say all, on all values that are documents.
WELL_KNOWN = {"to_json", "from_json", "to_dict", "from_dict"}


@pytest.mark.parametrize("name", midstream.__all__)
def test_a_public_name_is_typed(name: str) -> None:
    value = getattr(midstream, name)
    if dataclasses.is_dataclass(value):
        assert all(field.type for field in dataclasses.fields(value))
    if inspect.isclass(value):
        members = [m for m in vars(value).values() if isinstance(m, types.FunctionType)]
        functions = [m for m in members if m.__module__.startswith("midstream")]
    else:
        functions = [value]
    for function in functions:
        if dataclasses.is_dataclass(value) and function.__name__.startswith("__"):
            continue  # written by dataclasses
        signature = inspect.signature(function)
        untyped = [
            each.name
            for each in signature.parameters.values()
            if each.annotation is each.empty and each.name not in ("self", "cls")
        ]
        assert untyped == []
        assert signature.return_annotation is not signature.empty


def test_the_version_is_the_packages_own() -> None:
    from importlib.metadata import version

    assert midstream.__version__ == version("midstream")


def readme_example() -> str:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return str(block)


def test_readmes_example_is_ten_lines_and_runs(environment: Environment) -> None:
    """As it stands, but for a network that is profiled in a moment."""
    block = readme_example()
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    quick = block.replace('"resnet18"', '"digits"')
    assert quick != block
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", quick],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, last = done.stdout.splitlines()
    assert re.fullmatch(r"edge-only \d.*", first)
    assert re.fullmatch(r"(edge|cloud) \d.*", last)


@pytest.mark.slow
def test_readmes_example_runs_as_it_stands(environment: Environment) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", readme_example()],
        env=environment(),
        check=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def part() -> midstream.Partition:
    return midstream.partition("digits")


def test_a_partition_answers_alike_on_both_sides(part: midstream.Partition) -> None:
    (sample,) = midstream.inputs(part, seed=3)
    with (
        midstream.serve({"digits": part}) as server,
        midstream.connect(part, server, (1, "lossless")) as session,
    ):
        split = session.infer(sample)
        session.use(len(part.segments), "raw")
        alone = session.infer(sample)
    assert (split.where, alone.where) == ("cloud", "edge")
    assert {name: array.tobytes() for name, array in split.outputs.items()} == {
        name: array.tobytes() for name, array in alone.outputs.items()
    }


def test_what_a_server_describes_has_the_transforms_of_its_cuts(
    part: midstream.Partition, command: Callable[[str], Ran]
) -> None:
    fitted = fit_transforms(Chain(part), midstream.inputs(part, count=20), [0.9])
    names = {each.name for each in fitted.transforms}
    with midstream.serve(fitted) as server:
        shown = command(f"cloud describe --server {server}")
        (model,) = command(f"cloud describe --server {server} --json").document["models"]
    described = [each for cut in model["cuts"] for each in cut["transforms"]]
    assert {each["name"] for each in described} == names != set()
    assert all(name in shown.out for name in names)
    assert all(each["tensors"] for each in described)


def test_without_a_plan_everything_runs_on_the_edge(part: midstream.Partition) -> None:
    with midstream.connect(part, None) as session:
        assert session.plan == (len(part.segments), "raw")
        assert session.infer(midstream.inputs(part)[0]).where == "edge"


def test_a_plan_made_in_python_is_one_that_a_session_takes(part: midstream.Partition) -> None:
    cloud = midstream.profile(part, runs=3)
    edge = midstream.profile(part, slowdown=50, runs=3)
    assert edge.device.label().endswith("(emulated 50x slower)")
    link = midstream.link("10Gbit", downlink="1Gbit", rtt="100us")
    assert (link.uplink_bps, link.downlink_bps) == (1e10, 1e9)
    assert link.rtt_s == pytest.approx(1e-4)
    private = midstream.Constraints(min_depth=1)
    plan = midstream.plan(part, edge, cloud, link, constraints=private)
    assert plan.chosen.cut != "cloud-only"
    with midstream.connect(part, None, None) as session, midstream.serve(part) as server:
        whole = session.infer(midstream.inputs(part)[0])
        with midstream.connect(part, server, plan) as split:
            answer = split.infer(midstream.inputs(part)[0])
    assert relative_error(whole.outputs, answer.outputs) <= EXACT


def test_what_was_calibrated_in_python_is_what_a_plan_keeps_to(
    part: midstream.Partition, tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    images = random.uniform(0, 16, (12, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "some.npz", images=images, labels=np.arange(12) % 10)
    found = midstream.calibrate(
        part, tmp_path / "some.npz", codecs=["raw", "half", "ec:0.25"], count=10
    )
    assert (found.samples, found.metric, found.generated) == (10, "top-1", False)
    assert midstream.calibrate(part, codecs=["raw"], count=2).generated
    edge = midstream.profile(part, calibration=found, slowdown=50, runs=3)
    cloud = midstream.profile(part, calibration=found, runs=3)
    assert {each.codec for each in edge.codecs} >= set(found.codecs)
    slow = midstream.link("100kbit", rtt="1ms")
    plan = midstream.plan(
        part,
        edge,
        cloud,
        slow,
        calibration=found,
        constraints=midstream.Constraints(codecs=("ec:0.25",)),
    )
    assert {each.codec for each in plan.candidates} <= {"ec:0.25", "raw"}


@pytest.mark.parametrize("make", [str, Path, lambda path: Path(path).read_bytes()])
def test_a_network_is_loaded_from_a_path_or_its_bytes(
    models: Path, make: Callable[[Any], Any]
) -> None:
    network = midstream.load(make(str(models / "tiny.onnx")))
    assert network.graph.outputs == ("scores",)
    assert len(midstream.position_cuts(network.graph)) == 4


def test_a_partition_is_kept_in_a_folder(part: midstream.Partition, tmp_path: Path) -> None:
    midstream.save_partition(part, tmp_path / "digits.midstream")
    kept = midstream.load_partition(tmp_path / "digits.midstream")
    assert kept.digest == part.digest
    assert midstream.partition(tmp_path / "digits.midstream").digest == part.digest


def test_the_cuts_are_the_callers_to_choose(part: midstream.Partition) -> None:
    network = midstream.load("digits")
    cuts = midstream.position_cuts(network.graph)
    chosen = midstream.cut_of(network.graph, cuts[2].head)
    assert [cut.id for cut in midstream.partition("digits", cuts=[chosen]).cuts] == [
        "cloud-only",
        chosen.id,
        "edge-only",
    ]
    assert midstream.partition(network).digest == part.digest


def test_inputs_are_read_from_files_or_made_from_a_seed(
    part: midstream.Partition, tmp_path: Path
) -> None:
    given = np.arange(128, dtype=np.float32).reshape(2, 1, 8, 8)
    np.save(tmp_path / "two.npy", given)
    read = midstream.inputs(part, tmp_path / "two.npy", count=3)
    name = part.inputs[0].name
    assert [each[name].tobytes() for each in read] == [
        given[at : at + 1].tobytes() for at in (0, 1, 0)
    ]
    first, again, other = (midstream.inputs(part, seed=seed)[0] for seed in (1, 1, 2))
    assert first[name].tobytes() == again[name].tobytes() != other[name].tobytes()


@pytest.mark.parametrize("name", ["nosuch", "nosuch.onnx", ""])
def test_what_cannot_be_loaded_is_one_of_our_errors(name: str) -> None:
    with pytest.raises(midstream.MidstreamError):
        midstream.load(name)


def test_hints_of_the_public_functions_resolve() -> None:
    """What an IDE shows is what exists."""
    for name in ("partition", "inputs", "profile", "link", "serve", "connect"):
        hints = typing.get_type_hints(getattr(midstream, name), vars(midstream.api))
        assert "return" in hints


@dataclass(frozen=True)
class Alternate:
    """A policy of a user's own: one placement after the other."""

    menu: midstream.Menu
    count: int = 0

    @property
    def name(self) -> str:
        return "alternate"

    def decide(self, situation: midstream.Situation) -> midstream.Decision:
        return midstream.Decision(self.count % len(self.menu))

    def learn(self, evidence: midstream.Evidence) -> Alternate:
        return self if evidence.placement is None else replace(self, count=self.count + 1)


@pytest.fixture(scope="module")
def measured(part: midstream.Partition) -> midstream.Profile:
    return midstream.profile(part, runs=3)


def test_a_policy_is_a_name_or_the_users_own(
    part: midstream.Partition, measured: midstream.Profile
) -> None:
    x = midstream.inputs(part)[0]
    with midstream.serve(part, profile=measured) as server:
        with midstream.connect(part, server, policy="cloud-only", edge=measured) as session:
            assert session.infer(x).where == "cloud"
        menu = midstream.menu(part, measured, measured)
        for own in (Alternate, Alternate(menu)):
            with midstream.connect(
                part, server, policy=own, edge=measured, cloud=measured
            ) as session:
                answers = [session.infer(x) for _ in menu.placements]
                asked = [(placement.cut, placement.codec) for placement in menu.placements]
                assert [(each.cut, each.codec) for each in answers][:2] == asked[:2]
        with pytest.raises(midstream.UsageError, match="must be one of"):
            midstream.connect(part, server, policy="nonsense", edge=measured)
        with pytest.raises(midstream.UsageError, match="and no plan"):
            midstream.connect(part, server, (0, "raw"), policy="adaptive")


def test_a_refusal_says_how_the_feeds_of_both_sides_differ(part: midstream.Partition) -> None:
    other = midstream.partition("digits", feed=replace(part.feed, scale=0.5, sizes=()))
    with (
        midstream.serve({"kitchen": part}) as server,
        pytest.raises(midstream.CloudRefused, match=r"the feed differs: scale is 0\.5 here"),
    ):
        midstream.connect(other, server, (0, "raw"))


def test_a_session_keeps_to_the_budget_for_probes_that_it_is_given(
    part: midstream.Partition, measured: midstream.Profile
) -> None:
    with pytest.raises(UsageError, match="is of a policy"):
        midstream.connect(part, "127.0.0.1:1", (0, "raw"), probe_budget="0")
    with pytest.raises(UsageError, match="must be a size a day"):
        midstream.connect(part, "127.0.0.1:1", policy="adaptive", probe_budget="50MB")
    with (
        midstream.serve(part, profile=measured) as server,
        midstream.connect(
            part, server, policy="cloud-only", edge=measured, probe_budget="1MB/day"
        ) as session,
    ):
        director = session._engine.director
        assert isinstance(director, PolicyDirector)
        assert director.budget.day_nbytes == 1e6


def test_a_policy_waits_for_a_server_that_is_away(
    part: midstream.Partition, measured: midstream.Profile
) -> None:
    x = midstream.inputs(part)[0]
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
    with midstream.connect(part, address, policy="cloud-only", edge=measured) as session:
        assert session.infer(x).where == "edge"
        with midstream.serve(part, address=address, profile=measured):
            end_s = time.monotonic() + 30
            while session.infer(x).where != "cloud":
                assert time.monotonic() < end_s


def test_a_token_and_certificates_belong_to_the_public_face(
    part: midstream.Partition, certificates: Path
) -> None:
    credentials = server_tls(
        certificate=certificates / "server.pem", key=certificates / "server.key"
    )
    settings = Settings(credentials=credentials, token="sesame")
    x = midstream.inputs(part)[0]
    with midstream.serve({"kitchen": part}, settings=settings) as server:
        ca = str(certificates / "authority.pem")
        with midstream.connect(part, server, (0, "raw"), ca=ca, token="sesame") as session:
            assert session.infer(x).where == "cloud"
        with pytest.raises(midstream.CloudRefused, match="credentials"):
            midstream.connect(part, server, (0, "raw"), ca=ca, token="barley")
        with pytest.raises(midstream.ProtocolError, match="TLS"):
            midstream.connect(part, server, (0, "raw"))


def test_answers_are_awaited(part: midstream.Partition) -> None:
    async def ask(session: midstream.EdgeSession) -> list[str]:
        samples = midstream.inputs(part, count=20)
        answers = await asyncio.gather(*(session.ainfer(x) for x in samples))
        waiting = asyncio.create_task(session.ainfer(samples[0]))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return [answer.where for answer in answers]

    with midstream.serve(part) as server, midstream.connect(part, server, (0, "raw")) as s:
        assert asyncio.run(ask(s)) == ["cloud"] * 20
        assert s.infer(midstream.inputs(part)[0]).where == "cloud"


def test_a_folder_is_named_by_text_or_path(part: midstream.Partition, tmp_path: Path) -> None:
    midstream.save_partition(part, str(tmp_path / "p"))
    for folder in (tmp_path / "p", str(tmp_path / "p")):
        assert midstream.load_partition(folder).digest == part.digest
