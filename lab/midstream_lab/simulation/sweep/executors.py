"""Many independent runs, in processes of this machine or on a Ray cluster."""

from __future__ import annotations

import importlib.util
import multiprocessing
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, TypeVar

from midstream_partitioner.lifeline import follow_pool
from midstream_partitioner.machine import usable_cores
from midstream_wire.errors import MidstreamError, UsageError

Given = TypeVar("Given")
Made = TypeVar("Made")

Engine = Literal["local", "ray"]
ENGINES = ("local", "ray")
#: Tasks that a Ray cluster is given ahead, for each of its processors.
_AHEAD = 4
#: A cluster that takes longer to answer a first connection is taken for none.
ANSWER_S = 5.0


def run_all(
    call: Callable[[Given], Made],
    given: Sequence[Given],
    *,
    engine: str = "local",
    jobs: int | None = None,
    address: str | None = None,
) -> Iterator[tuple[int, Made]]:
    """`call(given[n])` for all n, as (n, result) in the order in which they come about.

    `call` must be a function of a module. Each result depends on its argument alone, so it is
    the same on whatever engine and however many processes (`jobs`; as many as there are
    processors if not given). `address` is a Ray cluster's; without one, Ray starts here.
    Raises `UsageError` for an engine that there is not (`check_engine`), and
    `MidstreamError` where one of its processes dies.
    """
    check_engine(engine, jobs, address)
    if engine == "ray":
        return _on_ray(call, given, jobs, address)
    count = min(jobs or usable_cores(), len(given))
    return _here(call, given) if count <= 1 else _in_processes(call, given, count)


def check_engine(engine: str, jobs: int | None = None, address: str | None = None) -> None:
    """`UsageError` if nothing could run there; to be asked before anything is begun."""
    if engine not in ENGINES:
        raise UsageError(f"an engine must be {' or '.join(ENGINES)} (not {engine!r})")
    if jobs is not None and jobs < 1:
        raise UsageError(f"there must be one process or more (not {jobs})")
    if engine != "ray" and address is not None:
        raise UsageError(
            "--ray-address is for --engine ray: leave it out, or take that engine"
        )
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise UsageError("--engine ray needs Ray: pip install 'midstream[ray]'")
    if engine == "ray" and address is not None:
        _check_address(address)


def _check_address(address: str) -> None:
    """Ray itself would try for minutes where nobody listens."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 1 << 16):
        raise UsageError(f"a Ray cluster must be given as HOST:PORT (not {address!r})")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except OSError as error:
        raise _silent(f"at {address}", error) from None


def _silent(where: str, error: Exception) -> UsageError:
    first = (str(error) or type(error).__name__).partition("\n")[0]
    return UsageError(f"Ray must answer {where} ({first}): start it, or take --engine local")


def _here(call: Callable[[Given], Made], given: Sequence[Given]) -> Iterator[tuple[int, Made]]:
    for at, each in enumerate(given):
        yield at, call(each)


def _in_processes(
    call: Callable[[Given], Made], given: Sequence[Given], count: int
) -> Iterator[tuple[int, Made]]:
    # Spawned, since a fork would copy the threads' locks of gRPC and onnxruntime.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=follow_pool) as pool:
        waiting = {pool.submit(call, each): at for at, each in enumerate(given)}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool:
            raise MidstreamError(
                f"{count} processes must end by themselves, and one was ended (out of "
                "memory?): give the command again with fewer --jobs"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_ray(
    call: Callable[[Given], Made],
    given: Sequence[Given],
    jobs: int | None,
    address: str | None,
) -> Iterator[tuple[int, Made]]:
    import ray

    # Without a dashboard, and silent: what it would print is no result.
    own: dict[str, Any] = {} if address else {"num_cpus": jobs, "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _silent(f"at {address}" if address else "on this machine", error) from None
    try:
        remote = ray.remote(call)
        most = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: dict[Any, int] = {}
        for at, each in enumerate(given):
            if len(waiting) >= most:
                yield _next_of(ray, waiting)
            waiting[remote.remote(each)] = at
        while waiting:
            yield _next_of(ray, waiting)
    finally:
        ray.shutdown()


def _next_of(ray: Any, waiting: dict[Any, int]) -> tuple[int, Any]:
    """The first result to come."""
    ready, _ = ray.wait(list(waiting), num_returns=1)
    return waiting.pop(ready[0]), ray.get(ready[0])
