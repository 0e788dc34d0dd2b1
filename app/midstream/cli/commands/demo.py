"""`midstream demo`: the main job on embedded defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from midstream import demo as demonstration
from midstream.cli.commands.pair import tell
from midstream.cli.flags.common import (
    Json,
)
from midstream.cli.flags.destinations import writable
from midstream.cli.output import console
from midstream.cli.output.outcomes import outcome_table, verdict
from midstream.documents import candidate_document
from midstream_lab.report.matplotlib_figures import check_picture, draw_outcomes, network_title
from midstream_partitioner.units import format_nbytes


def demo(
    requests: Annotated[int, typer.Option(min=1, help="Requests under each placement.")] = 6,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", callback=writable, help="File for the picture (.png or .svg)."
        ),
    ] = Path("out/demo.png"),
    json: Json = False,
) -> None:
    """Run the main job on embedded defaults: a photo through ResNet-18 cut in two.

    The edge is this machine, emulated 8 times slower; the links are emulated 3G, LTE and
    Wi-Fi. At the end the trained digits model shows its accuracy whole and split.
    """
    check_picture(output)
    documents = demonstration.run_networks(requests=requests, say=tell)
    lesson = demonstration.lesson(documents)
    joint = demonstration.joint_plans(say=tell)
    accuracies = demonstration.digits_accuracy()
    draw_outcomes(documents, output, title="ResNet-18, a photo, an edge emulated 8x slower")
    if json:
        console.print_json(
            {
                "networks": documents,
                "lesson": lesson,
                "joint": [_joint_document(each) for each in joint],
                "digits": [asdict(each) for each in accuracies],
                "picture": str(output),
            }
        )
        return
    for document in documents:
        console.show(outcome_table(document, network_title(document["network"])))
        console.say(verdict(document) + "\n")
    console.say(lesson, style="bold")
    _print_joint(joint)
    for each in accuracies:
        console.say(
            f"digits, {each.pictures} pictures never trained on: {each.whole:.1%} whole, "
            f"{each.split:.1%} split {each.cut} with {each.codec}"
        )
    console.say(f"picture: {output}")


def _joint_document(each: demonstration.Joint) -> dict[str, Any]:
    return {
        "network": each.network,
        "first_rung": candidate_document(each.plain),
        "joint": candidate_document(each.joint),
        "saving": each.saving,
    }


def _print_joint(joint: Sequence[demonstration.Joint]) -> None:
    """Tell what the best cut inside the model sends, with and without entropy-coded
    codecs.
    """
    rows = console.table(
        "best cut inside, private, answers moved by 0.1 at most (random weights; predicted)",
        *("network", "raw to int8", "payload", "total ms"),
        *("cut and codec together", "payload", "total ms", "payload saved"),
        left=("network", "raw to int8", "cut and codec together"),
    )
    for each in joint:
        rows.add_row(
            each.network,
            console.elided(each.plain.label),
            format_nbytes(each.plain.placement.payload_nbytes),
            console.ms(each.plain.latency_s),
            console.elided(each.joint.label),
            format_nbytes(each.joint.placement.payload_nbytes),
            console.ms(each.joint.latency_s),
            f"{each.saving:.1f} times",
        )
    console.show(rows)
