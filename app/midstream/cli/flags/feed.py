"""Flags of a feed: the kind of input, and its preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midstream.cli.flags.common import takes
from midstream.feeding import Feeding
from midstream_wire.errors import UsageError
from midstream_wire.text import read_text


def _feed(
    feed_file: Annotated[
        Path | None,
        typer.Option("--feed", help="File that describes the model's feed (TOML)."),
    ] = None,
    *,
    kind: Annotated[str | None, typer.Option(help="Kind of input: image or array.")] = None,
    feed_input: Annotated[
        str | None, typer.Option(help="Name of the model's input that is fed.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Layout: NCHW or NHWC.")] = None,
    height: Annotated[
        int | None,
        typer.Option(help="Height of pictures, where the model leaves it open (480)."),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help="Width of pictures, where the model leaves it open (640)."),
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="Resizing of pictures: stretch, crop, pad or keep.")
    ] = None,
    color: Annotated[
        str | None, typer.Option(help="Channels of pictures: RGB, BGR or GRAY.")
    ] = None,
    scale: Annotated[str | None, typer.Option(help="Factor on pixel values (1/255).")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Mean to subtract after scaling (0.485,0.456,0.406).")
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(help="Standard deviation to divide by, after the mean (0.23,0.22,0.23)."),
    ] = None,
    feed_labels: Annotated[
        Path | None, typer.Option(help="File with the names of the classes, one a line.")
    ] = None,
    public: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of an input that is no secret, such as a mask: --private and "
            "--min-depth let it cross. Repeatable.",
        ),
    ] = None,
) -> Feeding:
    return Feeding.of(
        feed_file,
        {
            "kind": kind,
            "input": feed_input,
            "layout": layout,
            "height": height,
            "width": width,
            "resize": resize,
            "color": color,
            "scale": scale,
            "mean": _numbers(mean, "--mean"),
            "std": _numbers(std, "--std"),
            "labels": feed_labels and read_text(feed_labels, "a list of labels").splitlines(),
            "public": public,
        },
    )


def _numbers(text: str | None, flag: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{flag} must be numbers with commas between them (not {text!r}): 0.5,0.5,0.5"
        ) from None


takes_feed = takes("feed", _feed)
