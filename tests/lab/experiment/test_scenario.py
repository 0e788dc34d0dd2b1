"""Scenario files: what is right is read, what is wrong is told in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from midstream_edge.policies.registry import POLICIES
from midstream_lab.experiment.scenario import Experiment, load_experiment
from midstream_wire.errors import UsageError

LEAST = {
    "policies": 'policies = ["adaptive"]',
    "models": 'models = ["digits"]',
    "traces": 'traces = ["8Mbit"]',
}
EXAMPLES = Path(__file__).parents[3] / "docs" / "experiments"

Load = Callable[[str], Experiment]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a scenario of the least that must be given and what a test adds or replaces."""

    def load(text: str) -> Experiment:
        given = [line for name, line in LEAST.items() if not text.startswith(f"{name} =")]
        path = tmp_path / "scenario.toml"
        path.write_text("\n".join([*given, text]))
        return load_experiment(path)

    return load


def test_what_is_not_given_has_a_default(load: Load) -> None:
    found = load("").scenario
    assert (found.duration_s, found.seeds, found.jobs) == (60.0, (0,), 1)
    assert (found.link.rtt_s, found.link.downlink_bps) == (0.040, None)
    assert found.models[0].name == "digits"
    assert found.load.every_s is None


def test_quantities_are_read_with_their_units(load: Load) -> None:
    found = load(
        'duration = "1.5min"\n[link]\nrtt = "12ms"\ndownlink = "20Mbit"\njitter = "500us"\n'
        'loss = "1%"\nqueue = "64KiB"\n[load]\nevery = "200ms"\n'
        '[planning]\nmax_loss = "0.5pt"\ncodecs = ["half", "jpeg:80"]\nprivate = true'
    ).scenario
    link = found.link
    assert (found.duration_s, found.load.every_s) == (90.0, 0.2)
    assert (link.rtt_s, link.downlink_bps, link.jitter_s) == pytest.approx((0.012, 20e6, 5e-4))
    assert (link.loss, link.queue_nbytes) == (0.01, 65536)
    assert found.planning.flags() == (
        "--codecs", "half,jpeg:80", "--private", "--max-loss", "0.5pt"
    )  # fmt: skip
    assert found.planning.constraints().min_depth == 1


def test_a_trace_is_a_rate_a_file_or_made_up(load: Load, tmp_path: Path) -> None:
    (tmp_path / "lte.up.txt").write_text("0 8\n1 9\n")
    found = load('traces = ["12 Mbit", "lte.up.txt", {generate = "3g", scale = 2}]').scenario
    assert [each.name for each in found.traces] == ["12Mbit", "lte.up", "3g"]
    assert found.traces[0].rate_bps == 12e6
    assert found.traces[1].file == str(tmp_path / "lte.up.txt")
    assert found.traces[2].scale == 2.0


def test_a_pattern_names_all_its_files(load: Load, tmp_path: Path) -> None:
    for name in ("b.txt", "a.csv.gz", "c.dat"):
        (tmp_path / name).touch()
    found = load('traces = [{file = "[ab].*", rtt = "80ms"}]').scenario
    assert [(each.name, each.rtt_s) for each in found.traces] == [("a", 0.08), ("b", 0.08)]


def test_paths_start_at_the_scenario_and_names_stay_names(load: Load, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    found = load('models = ["net.onnx", "resnet18"]').scenario
    assert [each.source for each in found.models] == [str(tmp_path / "net.onnx"), "resnet18"]
    assert [each.name for each in found.models] == ["net", "resnet18"]


def test_policies_that_are_compared_run_one_after_another(load: Load) -> None:
    found = load('policies = ["oracle", "adaptive"]\nseeds = [0, 1]')
    keys = found.keys({"digits": ("oracle", "adaptive")})
    assert [(key.seed, key.policy) for key in keys] == [
        (0, "oracle"), (0, "adaptive"), (1, "oracle"), (1, "adaptive")
    ]  # fmt: skip


@pytest.mark.parametrize("policy", [*POLICIES, "fixed", "cloud-only:jpeg:80", "periodic:2s"])
def test_every_policy_may_be_named(load: Load, policy: str) -> None:
    assert load(f'policies = ["{policy}"]').scenario.policies == (policy,)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            'durations = "1s"',
            "the scenario has no field 'durations': did you mean 'duration'?",
        ),
        (
            "duration = 60",
            'duration must be a duration with its unit, such as "40ms" (not 60)',
        ),
        (
            'duration = "60"',
            "duration is wrong: a duration needs the unit us, ms, s, min or",
        ),
        ('duration = "0.1s"', 'duration must be from "1s" to "1440min" (not 0.1 s)'),
        ('[link]\nrt = "40ms"', "link has no field 'rt': did you mean 'rtt'?"),
        ('[link]\nrtt = "x"', "link.rtt is wrong: a duration must be a number and a unit"),
        ('[link]\nbackend = "vm"', "link.backend must be 'auto', 'kernel', 'tun' or 'proxy'"),
        ('[link]\nloss = "101%"', "link.loss is wrong: a share must be 0% to 100%"),
        (
            "[link]\nloss = 3",
            'link.loss must be a share from 0 to 1, such as "70%" or 0.7 (not',
        ),
        ('title = "a\\u0000b"', "title must have no line ends or other control characters"),
        ("link = 3", "link must be a table of fields (not 3)"),
        ("seeds = []", "seeds must not be empty"),
        ('seeds = ["a"]', "seeds[1] must be a whole number (not 'a')"),
        ("seeds = [-1]", "seeds[1] must be greater than or equal to 0 (not -1)"),
        ("seeds = [1, 1]", "seeds must name each once (1 comes again)"),
        ("jobs = 0", "jobs must be greater than or equal to 1 (not 0)"),
        ("jobs = 1000", "jobs must be less than or equal to 256 (not 1000)"),
        ('jobs = "2"', "jobs must be a whole number (not '2')"),
        (
            "[edge]\nslowdown = 0.5",
            "edge.slowdown must be greater than or equal to 1 (not 0.5)",
        ),
        ("[planning]\nprivate = 1", "planning.private must be true or false (not 1)"),
        (
            'policies = ["adaptiv"]',
            "policies[1] must be a policy (not 'adaptiv'): did you mean",
        ),
        ('policies = ["fixed:"]', "policies[1] must be a policy (not 'fixed:')"),
        ("policies = []", "policies must not be empty"),
        ('models = [{name = "x"}]', "models[1].source must be given"),
        ("models = [3]", "models[1] must be a table of fields (not 3)"),
        ('models = ["digits", "digits"]', "models: each must have a name of its own"),
        ('models = [{source = "digits", input = "no.jpg"}]', "models: an input must exist"),
        ('traces = "x"', "traces must be a list (not 'x')"),
        ('traces = ["gone.txt"]', "traces: a file must exist where it is named"),
        ('traces = [{rate = "8"}]', "traces[1].rate is wrong: a rate needs the unit"),
        (
            'traces = [{rate = "8Mbit", foo = 1}]',
            "traces[1] has no field 'foo': known: name, ",
        ),
        ("traces = [{scale = 2}]", "traces[1] must have one of file, rate and generate"),
        (
            'traces = [{file = "a", rate = "8Mbit"}]',
            "traces[1] must have one of file, rate and generate (not file and rate)",
        ),
        ('traces = ["8Mbit", "8 Mbit"]', "traces: each must have a name of its own"),
        ("= 3", "must be a readable TOML file"),
        (f"x = {'[' * 9999}", "must be a TOML file with fewer tables in tables"),
        (f"x = {'9' * 9999}", "must be a readable TOML file"),
        (f"jobs = 0x{'f' * 9999}", "jobs must be"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(load: Load, text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(text)
    said = str(caught.value)
    assert "scenario.toml" in said
    assert sentence in said
    assert "\n" not in said


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.toml: no such file"):
        load_experiment(tmp_path / "gone.toml")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_are_scenarios(path: Path) -> None:
    assert load_experiment(path).scenario.policies
