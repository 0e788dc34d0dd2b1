"""The commands: a table of where each is defined, read before any of them is loaded.

Loading all commands takes four times as long as printing their names. So `midstream --help`
reads this table alone, and a command loads what it needs itself.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any, final

import typer
from typer.core import TyperGroup


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A command or group: its definition, its line in `midstream --help`, its examples.

    `home` is "module.function" in `midstream.cli.commands`; for a group "module", which has an
    `app`. `says` opens the help of the command itself, too.
    """

    home: str
    says: str
    examples: tuple[str, ...] = ()


#: Name -> entry, in the order of the help.
COMMANDS: dict[str, Entry] = {
    "profile": Entry(
        "models.profile",
        "Measure a model on this machine: each layer, or each segment of a partition.",
        (
            "midstream profile net.onnx --input photo.jpg",
            "midstream profile net.midstream --slowdown 8 -o edge.json",
        ),
    ),
    "plan": Entry(
        "plan.plan",
        "Show every useful cut, what each would cost, and which one wins.",
        (
            "midstream plan resnet18 --link lte",
            "midstream plan net.onnx --edge edge.json --cloud cloud.json --link 8Mbit:40ms",
        ),
    ),
    "partition": Entry(
        "partition.cut",
        "Cut a model once, at the places that can ever win, and write it as a folder.",
        (
            "midstream partition net.onnx -o net.midstream",
            "midstream partition resnet18 --no-measure",
        ),
    ),
    "verify": Entry(
        "verify.verify",
        "Check that head, codec and tail give the whole model's answer, cut by cut.",
        (
            "midstream verify net.onnx --cuts all",
            "midstream verify resnet18 --codec int8 --input photo.jpg",
        ),
    ),
    "calibrate": Entry(
        "calibrate.calibrate",
        "Run samples through every cut and codec, and keep what that does to the answers.",
        (
            "midstream calibrate net.midstream --data photos/ --labels labels.txt",
            "midstream calibrate net.onnx --data test.npz -o net.midstream",
        ),
    ),
    "codecs": Entry(
        "codecs.codecs",
        "Show what every codec at every cut costs: bits, time, accuracy.",
        (
            "midstream codecs net.midstream --draw codecs.svg",
            "midstream codecs digits --data digits.npz --codecs half,int8,ec:0.5",
        ),
    ),
    "cloud": Entry("cloud", "Serve tails to edges."),
    "edge": Entry("edge", "Run heads here, tails in the cloud."),
    "pair": Entry(
        "pair.pair",
        "Start cloud, emulated link and edge as three processes; run requests through them.",
        (
            "midstream pair resnet18 --link lte --edge-slowdown 8 --requests 20",
            "midstream pair net.onnx --link 8Mbit:40ms --input photo.jpg --private",
        ),
    ),
    "link": Entry(
        "pair.link",
        "Emulate a link: a TCP proxy with a rate and a delay. Ctrl-C ends it.",
        ("midstream link localhost:50051 --link 3g --listen 127.0.0.1:50052",),
    ),
    "traces": Entry("traces", "Look at traces of links, make some up, change their form."),
    "simulate": Entry(
        "simulate.simulate",
        "Run policies over a link in virtual time: one edge, one cloud.",
        (
            "midstream simulate net.midstream --trace lte.txt --policy adaptive --policy race",
            "midstream simulate menu.json --trace 3g:1 --duration 300s --every 200ms",
        ),
    ),
    "experiment": Entry(
        "experiment.experiment",
        "Run policies over traces, models and seeds with real processes; write a report.",
        (
            "midstream experiment docs/experiments/quick.toml",
            "midstream experiment mobile.toml -o out/mobile --jobs 2",
        ),
    ),
    "demo": Entry(
        "demo.demo",
        "Run the main job on embedded defaults: a photo through ResNet-18 cut in two.",
        ("midstream demo --requests 3 -o demo.svg",),
    ),
    "models": Entry(
        "models.models",
        "List the reference models that are built in.",
        ("midstream models --json",),
    ),
}


#: What `--link` was called before; scripts may have it still.
_FORMER = re.compile(r"^--network(?=$|=)")


@final
class Commands(TyperGroup):
    """The root group: it knows commands by name, and loads the one that is run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that `args` name, loaded, and the arguments that are its own."""
        name, found, rest = super().resolve_command(ctx, args)
        rest = [_FORMER.sub("--link", each) for each in rest]
        return name, load(name) if name and found else found, rest


def register(app: typer.Typer) -> None:
    """Give `app` the name and the line of every command."""
    for name, entry in COMMANDS.items():
        app.command(name, help=entry.says)(lambda: None)


def load(name: str) -> Any:
    """Import a command of the table and return it as what `typer` runs."""
    entry = COMMANDS[name]
    module, _, function = entry.home.partition(".")
    place = importlib.import_module(f"midstream.cli.commands.{module}")
    if not function:
        return typer.main.get_command(place.app)
    # Both stand on all that commands share, which their names alone do not need.
    from midstream.cli.flags.applicable import effective
    from midstream.cli.output.console import examples

    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name, epilog=examples(*entry.examples))(
        effective(name, getattr(place, function))
    )
    return typer.main.get_command(alone)
