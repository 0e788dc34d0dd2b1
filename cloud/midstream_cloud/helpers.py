"""Processes that decode for a server's workers, where Python would let only one do so.

Decoding ctx is hundreds of short numpy calls, between which the interpreter's lock is held:
two threads decode hardly more than one, and keep the event loop waiting. Each worker has such
a helper of its own, from the first payload on that is worth one. Payloads go over a pipe,
arrays come back through shared memory. A helper that fails is done without: its worker then
decodes by itself.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import BinaryIO, final

import numpy as np

from midstream_partitioner.lifeline import follow_parent, tied
from midstream_wire.codecs import Decoder, decode
from midstream_wire.errors import CodecError, MidstreamError
from midstream_wire.limits import KIB, MIB
from midstream_wire.tensors import DTYPES, Array, TensorSpec

_LOG = logging.getLogger(__name__)

#: Families that are decoded by Python more than by what it calls.
FAMILIES = frozenset(("ctx",))

#: Smaller arrays are decoded in about the time that asking takes; larger ones would have the
#: helpers take memory that no budget knows.
LEAST_NBYTES, MOST_NBYTES = 64 * KIB, 16 * MIB

#: How long a helper may take over one array; the largest takes a few seconds.
_PATIENCE_S = 30.0

#: Bytes of what describes the array, of the payload, and of the array.
_ASK = struct.Struct("<IIQ")
#: 0: the array lies in the memory; else bytes of the reason why there is none.
_ANSWER = struct.Struct("<I")


@final
class Helper:
    """One helper of one worker. `decode` is called by one thread at a time."""

    def __init__(self) -> None:
        self._memory_file = _memory_file()
        self._memory: mmap.mmap | None = None
        self._ready = self._closed = False
        self._lock = threading.Lock()
        descriptor = self._memory_file.fileno()
        arguments = tied(os.environ)
        arguments["pass_fds"] = (*arguments["pass_fds"], descriptor)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the server, which ends it when it is done
            **arguments,
        )

    def decode(self, decoder: Decoder) -> Array | None:
        """Return the array of a payload that has come whole.

        None when the helper is not ready yet, or the payload none for it. Raises `CodecError`
        for what is wrong with it, and `OSError` when the helper is of no use any more.
        """
        with self._lock:
            kept = decoder.kept()
            if kept is None or not self._is_ready():
                return None
            return self._ask(*kept, decoder.nbytes)

    def close(self) -> None:
        """End it, whatever it does; a worker that waits for it is told by its pipes."""
        self._process.kill()
        self._process.wait()
        with self._lock:
            self._closed = True
            for file in (self._process.stdin, self._process.stdout, self._memory_file):
                _pipe(file).close()

    def _ask(
        self, spec: TensorSpec, payload: Sequence[bytes | memoryview], nbytes: int
    ) -> Array:
        shape = tuple(map(int, spec.shape))
        described = {"name": spec.name, "dtype": spec.dtype, "shape": shape}
        told = json.dumps(described).encode()
        memory = self._room_for(nbytes)
        body = b"".join(payload)
        stdin = _pipe(self._process.stdin)
        _write_all(stdin, b"".join((_ASK.pack(len(told), len(body), nbytes), told)))
        _write_all(stdin, body)
        (refusal_nbytes,) = _ANSWER.unpack(self._read(_ANSWER.size))
        if refusal_nbytes:
            raise CodecError(self._read(refusal_nbytes).decode())
        flat = np.frombuffer(memory, np.uint8, nbytes)
        return flat.view(DTYPES[spec.dtype]).reshape(shape).copy()

    def _is_ready(self) -> bool:
        """Return True if it has started up, which nobody waits for."""
        if self._closed:
            raise BrokenPipeError("a helper was closed")
        if not self._ready and select.select([_pipe(self._process.stdout)], [], [], 0)[0]:
            self._ready = self._read(1) == b"+"
        return self._ready

    def _room_for(self, nbytes: int) -> mmap.mmap:
        if self._memory is None or len(self._memory) < nbytes:
            self._memory_file.truncate(nbytes)
            self._memory = mmap.mmap(self._memory_file.fileno(), nbytes)
        return self._memory

    def _read(self, count: int) -> bytes:
        stdout = _pipe(self._process.stdout)
        parts = b""
        while len(parts) < count:
            if not select.select([stdout], [], [], _PATIENCE_S)[0]:
                raise TimeoutError(f"a helper took more than {_PATIENCE_S:g} s")
            part = stdout.read(count - len(parts))
            if not part:
                raise BrokenPipeError("a helper ended")
            parts += part
        return parts


@final
class Decoding:
    """Decodes for `workers` threads: each one's helper does it, or the thread itself."""

    def __init__(self, workers: int) -> None:
        self._helps = workers > 1
        self._own = threading.local()
        self._lock = threading.Lock()
        self._helpers: list[Helper] = []

    def decode(self, decoder: Decoder) -> Array:
        """Return the array of a payload that has come whole; raises `CodecError`."""
        family = decoder.codec_id.partition(":")[0]
        if (
            self._helps
            and family in FAMILIES
            and LEAST_NBYTES <= decoder.nbytes <= MOST_NBYTES
        ):
            try:
                array = self._helper().decode(decoder)
            except OSError as error:
                self._helps = False
                _LOG.warning("workers decode %s by themselves from now on: %s", family, error)
            else:
                if array is not None:
                    return array
        return decoder.result()

    def close(self) -> None:
        """End all helpers."""
        with self._lock:
            self._helps = False
            helpers, self._helpers = self._helpers, []
        for helper in helpers:
            helper.close()

    def _helper(self) -> Helper:
        helper: Helper | None = getattr(self._own, "helper", None)
        if helper is None:
            with self._lock:
                if not self._helps:
                    raise ProcessLookupError("the server is stopping")
                helper = self._own.helper = Helper()
                self._helpers.append(helper)
        return helper


def _memory_file() -> BinaryIO:
    """Open a file that lies in memory, where the system has such."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("midstream-decoded"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _pipe(found: object) -> BinaryIO:
    assert found is not None
    return found  # type: ignore[return-value]  # Popen's pipes are so, given PIPE


def _write_all(pipe: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]


# The helper's own side.


def serve(asked: BinaryIO, answers: BinaryIO, memory_file: int) -> None:
    """Decode what is asked for until there is nothing more."""
    memory: mmap.mmap | None = None
    answers.write(b"+")
    answers.flush()
    while len(ask := asked.read(_ASK.size)) == _ASK.size:
        told_nbytes, payload_nbytes, nbytes = _ASK.unpack(ask)
        told = json.loads(asked.read(told_nbytes))
        spec = TensorSpec(told["name"], told["dtype"], tuple(told["shape"]))
        payload = asked.read(payload_nbytes)
        try:
            array = decode(payload, spec, max_nbytes=nbytes)
        except (MidstreamError, MemoryError) as error:
            reason = (str(error) or type(error).__name__).encode()
            answers.write(_ANSWER.pack(len(reason)) + reason)
        else:
            if memory is None or len(memory) < nbytes:
                memory = mmap.mmap(memory_file, nbytes)
            np.frombuffer(memory, np.uint8, nbytes)[:] = array.reshape(-1).view(np.uint8)
            answers.write(_ANSWER.pack(0))
        answers.flush()


if __name__ == "__main__":
    follow_parent()
    serve(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]))
