"""Sessions of onnxruntime, all opened alike: memory, threads, providers, bfloat16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import ml_dtypes
import numpy as np
import onnxruntime as ort

from midstream_partitioner.backends.providers import Provider
from midstream_partitioner.backends.refusals import refusal
from midstream_partitioner.backends.widening import widened
from midstream_partitioner.machine import usable_memory_nbytes
from midstream_partitioner.onnx_tools.names import with_own_bytes
from midstream_wire.errors import MidstreamError, ModelError, UsageError

ort.set_default_logger_severity(4)
# Builds with telemetry would tell their makers what runs here; that is its owner's business.
ort.disable_telemetry_events()

ON_CPU = Provider("CPUExecutionProvider")

#: Share of the machine's memory that all sessions together may take: a network that wants more
#: (120 bytes of one can ask for terabytes) fails with an error instead of taking the machine
#: down.
MEMORY_SHARE = 0.8

#: How onnxruntime's Python face names what it has no arrays for.
_BFLOAT16 = "tensor(bfloat16)"

#: What onnxruntime says where it is to widen 8-bit weights, for exact sums, and two operators
#: share one of them or its zero point.
_SHARED = "Attempt to replace the existing tensor"


def session_options(threads: int) -> ort.SessionOptions:
    """Options of a session whose runs take so many threads."""
    bound_memory(int(MEMORY_SHARE * usable_memory_nbytes()))
    options = ort.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Idle workers that spin would take the cores from the other sessions of a chain.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A product with quantized weights would quantize the activations too, by default, wherever
    # the cut hides how they were quantized already, and be up to 1 % off. 1: in float32.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    # Without VNNI the 16-bit sums of 8-bit products saturate: answers would depend on the
    # processor, and on whether a cut hides that signed numbers can be taken as unsigned ones.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


@final
@dataclass(frozen=True, slots=True)
class Opened:
    """A session; of the inputs and outputs in `narrow`, which are bfloat16, it takes and gives
    float32."""

    session: ort.InferenceSession
    narrow: frozenset[str] = frozenset()

    def run(
        self, names: Sequence[str], feeds: Mapping[str, Any], options: ort.RunOptions | None
    ) -> list[Any]:
        wide = {
            name: array.astype(np.float32) if name in self.narrow else array
            for name, array in feeds.items()
        }
        values = self.session.run(names, wide, options)
        return [
            array.astype(ml_dtypes.bfloat16) if name in self.narrow else array
            for name, array in zip(names, values, strict=True)
        ]


def open_session(
    model: bytes | Path, options: ort.SessionOptions, provider: Provider
) -> Opened:
    """Compile a model, rewritten where it takes that; `ModelError` if it cannot run."""
    try:
        session = compile_session(model, options, provider)
    except Exception as error:  # onnxruntime raises a dozen unrelated types
        if _SHARED in str(error):
            return _opened(with_own_bytes(model), options, provider)
        found = _widened(model)
        if found is None:
            raise refused(error, provider) from error
        return _opened(found[0], options, provider, found[1])
    ends = (*session.get_inputs(), *session.get_outputs())
    if all(value.type != _BFLOAT16 for value in ends):
        return Opened(session)
    made, narrow = widened(model) or (model, frozenset())
    return _opened(made, options, provider, narrow)


def _widened(model: bytes | Path) -> tuple[bytes, frozenset[str]] | None:
    """As `widened`; None, too, for what cannot even be read."""
    try:
        return widened(model)
    except Exception:  # the refusal that made us ask says more
        return None


def _opened(
    model: bytes | Path,
    options: ort.SessionOptions,
    provider: Provider,
    narrow: frozenset[str] = frozenset(),
) -> Opened:
    try:
        return Opened(compile_session(model, options, provider), narrow)
    except Exception as error:
        raise refused(error, provider) from error


def compile_session(
    model: bytes | Path, options: ort.SessionOptions, provider: Provider
) -> ort.InferenceSession:
    """Compile a model as it stands; raises whatever onnxruntime does.

    `UsageError` where the provider is not there: the CPU never takes its place.
    """
    source = str(model) if isinstance(model, Path) else model
    settings = provider.settings(options.intra_op_num_threads)
    # The fallback would try the same provider again, and print to standard output first.
    session = ort.InferenceSession(
        source,
        options,
        providers=[(provider.name, settings)],
        enable_fallback=0,
        disabled_optimizers=list(provider.traits.without),
    )
    if provider.name not in session.get_providers():
        # onnxruntime would go on with the CPU, and say so in its log alone.
        raise UsageError(
            f"the provider {provider} must find its device and libraries on this machine, "
            "with these options, and does not: install what it needs, or leave --provider out"
        )
    return session


def refused(error: Exception, provider: Provider = ON_CPU) -> MidstreamError:
    """Return what to tell of onnxruntime's refusal of a model."""
    if isinstance(error, MidstreamError):
        return error
    advice = "export it with other operators, dtypes or another opset"
    if provider.options:
        advice = f"correct the options of --provider {provider}, or {advice}"
    return ModelError(
        f"the model must run on onnxruntime {ort.__version__}, which refuses it: "
        + refusal(error, advice=advice)
    )


def bound_memory(nbytes: int) -> bool:
    """Have all networks of this process together take at most `nbytes`, weights included.

    False, and without effect, once the first one is compiled. A run that would take more fails
    (`refusals.lacks_memory`), and the others go on.
    """
    if _arena_nbytes:
        return False
    _share_arena(nbytes)
    return True


#: The bound of the arena that all sessions share, once it is there.
_arena_nbytes: list[int] = []


def _share_arena(most_nbytes: int) -> None:
    """One arena for all sessions of the process, instead of one each.

    A chain then takes the working memory of its largest segment, not the sum over segments:
    1.02 times the unsplit network's for a small detector, where it was 1.34 times.
    """
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    # Extend by what is asked for (1), not by doubling, which reaches the limit at half of it.
    ort.create_and_register_allocator(
        memory, ort.OrtArenaCfg({"max_mem": most_nbytes, "arena_extend_strategy": 1})
    )
    _arena_nbytes.append(most_nbytes)
