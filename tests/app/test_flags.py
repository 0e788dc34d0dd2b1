"""A flag that would have no effect is refused by name, in every command."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.app.conftest import Run

from midstream.cli.command_table import COMMANDS, load
from midstream.cli.flags.applicable import RULES, Rule
from midstream.cli.main import app
from midstream_lab.traces.conditions import condition
from midstream_wire.errors import UsageError

#: Values that pass for a flag's type; most flags take a text or a number.
VALUES = {
    "objective": "latency",
    "min_depth": "2",
    "codec_plugin": "python:examples.own_codec:make",
}

pytestmark = pytest.mark.usefixtures("no_codec_plugins")


def parameters(name: str) -> dict[str, Any]:
    first, *others = name.split()
    found = load(first)
    for word in others:
        found = found.commands[word]
    return {each.name: each for each in found.params}


def typed(command: str, *names: str) -> list[str]:
    """The words that give the flags `names` to a command."""
    known, words = parameters(command), []
    for name in names:
        words.append(max(known[name].opts, key=len))
        if not known[name].is_flag:
            words.append(VALUES.get(name, "3"))
    return words


def refusal(words: list[str]) -> str:
    with pytest.raises(UsageError) as told:
        app(words, standalone_mode=False)
    return str(told.value)


def useless() -> Iterator[tuple[str, str, Rule]]:
    for command, rules in RULES.items():
        for rule in rules:
            yield from ((command, flag, rule) for flag in rule.flags)


@pytest.mark.parametrize(
    ("command", "flag", "rule"),
    [pytest.param(*each, id=f"{each[0]} {each[1]} {n}") for n, each in enumerate(useless())],
)
def test_a_flag_without_effect_is_refused_by_name(command: str, flag: str, rule: Rule) -> None:
    spelled = typed(command, flag)
    model = ["net.onnx"] * bool({"model", "models", "scenario"} & parameters(command).keys())
    others = [each for each in rule.beside if each != flag]
    needed = () if rule.needs == ("server",) or command != "edge run" else ("server",)
    said = refusal([*command.split(), *model, *spelled, *typed(command, *others, *needed)])
    assert said.startswith(spelled[0]) or f" {spelled[0]}" in said.partition(" must ")[0]
    for other in (*rule.beside, *rule.needs):
        assert typed(command, other)[0] in said


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("simulate net.onnx --sweep default --ray-address a:1", "--ray-address"),
        ("simulate net.onnx --jobs 2", "--jobs"),
        ("simulate fleet.toml --seed 1", "--seed"),
        ("edge run net.onnx --server a:1 --adaptive --trace lte --trace-origin 1", "--trace"),
        ("edge run net.onnx --server a:1 --private --cut k1", "--private"),
        ("plan net.onnx --link lte --edge a --cloud b --runs 3 --threads 2", "--threads"),
    ],
)
def test_more_of_them(line: str, flag: str) -> None:
    assert flag in refusal(line.split())


def test_what_two_rules_say_of_a_flag_is_no_contradiction() -> None:
    """No flag is asked to stand beside another and away from it."""
    for command, rules in RULES.items():
        for one, other in itertools.permutations(rules, 2):
            shared = set(one.flags) & set(other.flags)
            assert not (shared and one.needs and other.beside == one.needs), command


@pytest.mark.parametrize("flag", ["--network lte", "--network=lte", "--link lte"])
def test_a_link_is_taken_by_its_former_flag_too(command: Run, flag: str) -> None:
    done = command(f"plan digits {flag} --runs 3 --json")
    assert json.loads(done.out)["link"]["rtt_s"] == condition("lte").link.rtt_s


def test_help_shows_no_former_flag(command: Run) -> None:
    assert "--network" not in command("plan --help").out


def every_parameter() -> Iterator[tuple[str, Any]]:
    for name in COMMANDS:
        found = load(name)
        inner = getattr(found, "commands", {"": found})
        for word, command in inner.items():
            yield from ((f"{name} {word}".strip(), each) for each in command.params)


def test_help_is_a_noun_phrase_or_an_order_in_short_sentences() -> None:
    strays = [
        f"{name} {each.name}: {each.help}"
        for name, each in every_parameter()
        for said in [getattr(each, "help", None) or "-"]
        if re.match(r"(What|Whether|Who|When|Where|How|Why|Which|Most|Least|At most)\b", said)
        or max(len(sentence.split()) for sentence in re.split(r"[.:;] ", said)) > 25
    ]
    assert strays == []
