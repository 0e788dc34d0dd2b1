"""`midstream cloud`: serving the tails of models, and asking a server what it serves."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import typer

from midstream.cli import completion
from midstream.cli.flags.applicable import effective
from midstream.cli.flags.common import (
    Execution,
    Json,
    Server,
    Size,
    Slowdown,
    Threads,
    takes,
    takes_execution,
)
from midstream.cli.flags.feed import takes_feed
from midstream.cli.flags.security import Insecure, Token, Trust, takes_trust
from midstream.cli.opening import read_profile, say_sizes
from midstream.cli.output import console
from midstream.documents import tensor_document
from midstream.feeding import Feeding
from midstream.metrics import published
from midstream.server_metrics import registry_of
from midstream.serving import open_repository
from midstream_cloud.budget import networks_limit
from midstream_cloud.repository import Repository
from midstream_cloud.server import Settings, run
from midstream_cloud.statistics import Statistics
from midstream_edge.link.describe import check_health, describe_all
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.backends.onnxruntime_sessions import bound_memory
from midstream_partitioner.costs.size_spans import parse_sizes
from midstream_partitioner.machine import usable_cores
from midstream_partitioner.units import format_nbytes, parse_duration, parse_nbytes
from midstream_wire.address import Address, parse_address
from midstream_wire.credentials import load_token, require_safe, server_tls
from midstream_wire.errors import UsageError

app = typer.Typer(help="Serve tails to edges.", no_args_is_help=True)


@final
@dataclass(frozen=True, slots=True)
class Tails:
    """Settings of the tails: how they are loaded, and fused while they are used."""

    size: Size = None
    threads: Threads = 1
    slowdown: Slowdown = 1.0
    runs: Annotated[
        int,
        typer.Option(min=0, help="Runs for the profile that edges plan with (0: no profile)."),
    ] = 20
    profile: Annotated[
        Path | None,
        typer.Option(help="Profile of this cloud, for its only model. Default: measured."),
    ] = None
    fuse: Annotated[
        list[str] | None,
        typer.Option(help="Cut (its id) whose tail is also compiled into one piece."),
    ] = None
    fuse_after: Annotated[
        int,
        typer.Option(
            min=0,
            help="Fuse the tail in the background after this many consecutive requests with "
            "the same cut (0: never).",
        ),
    ] = 0
    repartition: Annotated[
        int,
        typer.Option(
            min=0,
            help="Maximum number of further partitions of a model that edges may request "
            "(0: none).",
        ),
    ] = 2

    def open(
        self, models: Sequence[str], *, feed: Feeding, workers: int, backend: Backend
    ) -> Repository:
        with console.progress("loading and profiling") as tick:
            repository = open_repository(
                models,
                feed=feed,
                sizes=parse_sizes(self.size or ()),
                threads=self.threads,
                slowdown=self.slowdown,
                runs=self.runs,
                repartition=self.repartition,
                profile=read_profile(self.profile, backend),
                backend=backend,
                workers=workers,
                progress=tick,
                left_out=_not_served,
            )
        for model in repository.models.values():
            say_sizes(model.partition.inputs, model.partition.feed)
        _fuse_tails(repository, self.fuse or [])
        for model in repository.models.values():
            model.chain.fuse_stable(self.fuse_after)
        return repository


def _settings(
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Tails that run at a time. Default: one per core."),
    ] = None,
    *,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Maximum memory of the whole server (2GiB). Default: three quarters of the "
            "container's or the machine's."
        ),
    ] = None,
    max_work: Annotated[
        str | None,
        typer.Option(
            help="Maximum predicted tail time of one request (500ms). Default: four times the "
            "longest profiled of its model, at least 1s."
        ),
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="Server certificate (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="Key of the certificate (PEM).")] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(help="Authority whose certificates edges must present (PEM)."),
    ] = None,
    token_file: Token = None,
    insecure: Insecure = False,
    drain: Annotated[
        float,
        typer.Option(min=0, help="Grace period for running requests at a stop, in seconds."),
    ] = 10.0,
) -> Settings:
    """Return how the server serves, and whom."""
    if (cert is None) != (key is None):
        raise UsageError("TLS needs a certificate and its key: give both --cert and --key")
    if client_ca is not None and cert is None:
        raise UsageError("--client-ca needs TLS: give --cert and --key as well")
    credentials = None
    if cert is not None and key is not None:
        credentials = server_tls(certificate=cert, key=key, client_authority=client_ca)
    return Settings(
        credentials=credentials,
        token=load_token(token_file) if token_file is not None else None,
        insecure=insecure,
        workers=workers,
        memory_nbytes=None if memory is None else parse_nbytes(memory),
        max_work_s=None if max_work is None else parse_duration(max_work),
        drain_s=drain,
    )


@app.command(
    epilog=console.examples(
        "midstream cloud serve resnet18",
        "midstream cloud serve models/ --listen 0.0.0.0:50051 --cert cert.pem --key key.pem",
    )
)
@functools.partial(effective, "cloud serve")
@takes("settings", _settings)
@takes("tails", Tails)
@takes_feed
@takes_execution
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            autocompletion=completion.models,
            help="Partitions, ONNX files or reference models, or folders of the former two.",
        ),
    ],
    listen: Annotated[
        str, typer.Option(help="Address to listen on; port 0 picks a free port.")
    ] = "127.0.0.1:50051",
    *,
    feed: Feeding,
    tails: Tails,
    execution: Execution,
    settings: Settings,
    metrics: Annotated[
        str | None, typer.Option(help="Address for Prometheus metrics (127.0.0.1:9100).")
    ] = None,
    metrics_insecure: Annotated[
        bool, typer.Option(help="Allow plaintext metrics beyond loopback.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the listening address as one JSON line.")
    ] = False,
) -> None:
    """Serve one or more models until interrupted.

    Every model is compiled once, for all edges. On SIGTERM or Ctrl-C what is under way is
    finished first.
    """
    require_safe(
        parse_address(listen),
        tls=settings.credentials is not None,
        token=settings.token is not None,
        insecure=settings.insecure,
    )
    workers, backend = settings.workers or usable_cores(), execution.open()
    bound_memory(networks_limit(settings.memory_nbytes))
    repository = tails.open(models, feed=feed, workers=workers, backend=backend)

    def announce(address: Address) -> None:
        names = sorted(repository.models)
        if json:
            console.print_json_line({"listening": str(address), "models": names})
        else:
            emulated = tails.slowdown
            slower = f", emulated {emulated:g}x slower" if emulated > 1 else ""
            console.say(f"serving {', '.join(names)} on {address}{slower}", to=console.err)
        console.say_notes()

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    statistics = Statistics()
    with contextlib.ExitStack() as stack:
        if metrics is not None:
            registry = registry_of(statistics)
            page = published(registry, parse_address(metrics), insecure=metrics_insecure)
            where = stack.enter_context(page)
            console.say(f"metrics at http://{where}/metrics", to=console.err)
        run(repository, listen, settings=settings, statistics=statistics, on_start=announce)


def _not_served(source: str, error: Exception) -> None:
    console.say(f"not served: {source}: {error}", to=console.err, style="bold")


def _fuse_tails(repository: Repository, cuts: Sequence[str]) -> None:
    """Compile the tails behind `cuts` for plans that stay; `UsageError` for an unknown one."""
    for cut in cuts:
        holders = [
            model
            for model in repository.models.values()
            if cut in (each.id for each in model.partition.cuts)
        ]
        if not holders:
            raise UsageError(
                f"--fuse must be the id of a cut of a model that is served ({cut!r} is none): "
                "`midstream cloud describe` lists them"
            )
        for model in holders:
            part = model.partition
            model.chain.fuse(part.index_of(cut), len(part.segments))


@app.command(
    "describe", epilog=console.examples("midstream cloud describe --server localhost:50051")
)
@functools.partial(effective, "cloud describe")
@takes_trust
def describe_server(
    server: Server = "localhost:50051",
    *,
    trust: Trust,
    json: Json = False,
) -> None:
    """Show the models that a server holds, and where they are cut."""
    described = describe_all(trust.endpoint(server))
    models = described.models
    if json:
        entries = [
            {
                "name": model.name,
                "graph_digest": model.graph_digest,
                "partition_digest": model.partition_digest,
                "cuts": [
                    {
                        "id": cut.id,
                        "tensors": [tensor_document(spec) for spec in cut.tensors],
                        "transforms": [
                            {
                                "name": transform.name,
                                "tensors": [tensor_document(s) for s in transform.tensors],
                            }
                            for transform in cut.transforms
                        ],
                    }
                    for cut in model.cuts
                ],
                "codecs": list(model.codecs),
                "own_codecs": {each.name: each.version for each in model.own_codecs},
                "feed": dict(model.feed),
            }
            for model in models
        ]
        unreadable = [{"name": name, "reason": why} for name, why in described.unreadable]
        console.print_json({"server": server, "models": entries, "unreadable": unreadable})
        return
    for model in models:
        rows = console.table(
            f"{model.name}  partition {model.partition_digest[:12]}",
            *("cut", "crossing", "raw", "transforms"),
            left=("cut", "crossing", "transforms"),
        )
        for cut in model.cuts:
            sizes = sum(spec.nominal_nbytes for spec in cut.tensors)
            crossing = ", ".join(f"{console.elided(spec.name)} {spec}" for spec in cut.tensors)
            transforms = ", ".join(each.name for each in cut.transforms) or "none"
            rows.add_row(cut.id, crossing, format_nbytes(sizes), transforms)
        console.show(rows)
    for name, why in described.unreadable:
        console.say(f"not readable: {console.printable(name)}: {why}", style="bold")


@app.command(epilog=console.examples("midstream cloud health --server localhost:50051"))
@functools.partial(effective, "cloud health")
@takes_trust
def health(
    server: Server = "localhost:50051",
    *,
    trust: Trust,
    json: Json = False,
) -> None:
    """Exit with 0 if the server is serving, with 1 otherwise (grpc.health.v1)."""
    check_health(trust.endpoint(server))
    if json:
        console.print_json({"server": server, "serving": True})
    else:
        console.say(f"{server} is serving")
