"""Commands as real processes, small models good and bad, and servers to talk to."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, final

import grpc
import numpy as np
import psutil
import pytest
from onnx import numpy_helper, parser

import midstream
from midstream_wire.tensors import Array

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0

Announce = Callable[[str, str], None]

_NETWORK = """
<ir_version: 8, opset_import: ["" : 17, "house.own" : 1]>
net (float[batch, 8] x) => (float[batch, 4] scores) {{
  first = MatMul(x, w0)
  middle = {operator}(first)
  scores = MatMul(middle, w1)
}}"""


#: What a simulation chooses from, without a network; and a fleet that chooses from it.
_MENU = b"""{"model": "net", "menu": [
  {"cut": "cloud-only", "codec": "raw", "k": 0, "label": "cloud-only raw", "remote": true,
   "head_s": 0, "encode_s": 0.001, "decode_s": 0.001, "tail_s": 0.01,
   "payload_nbytes": 20000, "reply_nbytes": 400, "rest_s": 0.1},
  {"cut": "edge-only", "codec": "raw", "k": 1, "label": "edge-only", "remote": false,
   "head_s": 0.1, "encode_s": 0, "decode_s": 0, "tail_s": 0,
   "payload_nbytes": 0, "reply_nbytes": 0, "rest_s": 0}]}"""
_FLEET = b"""
duration = "20s"
[cloud]
replicas = 2
[[edges]]
name = "cameras"
count = 4
menu = "menu.json"
requests = { kind = "every", every = "500ms" }
"""


def environment(**more: str) -> dict[str, str]:
    """What a command's process is given: this one's packages, no terminal's width."""
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return kept | {"PYTHONPATH": os.pathsep.join(sys.path)} | more


Environment = Callable[..., dict[str, str]]


@pytest.fixture
def announce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Announce:
    """Return what installs a package that announces `entries` under `group`."""

    def install(group: str, entries: str) -> None:
        info = tmp_path / "announcing-1.0.dist-info"
        info.mkdir()
        told = "Metadata-Version: 2.1\nName: announcing\nVersion: 1.0\n"
        (info / "METADATA").write_text(told)
        (info / "entry_points.txt").write_text(f"[{group}]\n{entries}")
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    return install


@pytest.fixture(name="environment", scope="session")
def _environment() -> Environment:
    return environment


def split(arguments: str | Sequence[str]) -> list[str]:
    return shlex.split(arguments) if isinstance(arguments, str) else list(arguments)


def command_line(arguments: str | Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "midstream", *split(arguments)]


CommandLine = Callable[[str], list[str]]


@pytest.fixture(name="command_line", scope="session")
def _command_line() -> CommandLine:
    return command_line


@final
@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its one JSON document, after it went well and said nothing else."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """Its one sentence, after it failed and said nothing else."""
        assert "Traceback" not in self.err
        assert self.out == ""
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1
        return self.err.removeprefix("error: ").strip()


Run = Callable[..., Ran]


@pytest.fixture(scope="session")
def command(models: Path) -> Iterator[Run]:
    """Runs `midstream ARGUMENTS` in the folder of models, in a process forked for it."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    words = [sys.executable, str(ROOT / "tests/app/forkserver.py"), str(theirs.fileno())]
    with ours, subprocess.Popen(words, env=environment(), pass_fds=[theirs.fileno()]):
        theirs.close()
        ours.settimeout(PATIENCE_S)

        def run(arguments: str | Sequence[str]) -> Ran:
            request = {"arguments": split(arguments), "folder": str(models)}
            with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
                files = [out.fileno(), err.fileno()]
                socket.send_fds(ours, [json.dumps(request).encode()], files)
                code = int(ours.recv(16))
                for file in (out, err):
                    file.seek(0)
                return Ran(code, out.read(), err.read())

        yield run
        ours.shutdown(socket.SHUT_RDWR)


def model_bytes(operator: str = "Relu", *, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    model = parser.parse_model(_NETWORK.format(operator=operator))
    for name, shape in (("w0", (8, 8)), ("w1", (8, 4))):
        weights = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models and inputs, some good and some bad, named for what they are."""
    folder = tmp_path_factory.mktemp("models")
    good = model_bytes()
    files = {
        "tiny.onnx": good,
        "other.onnx": model_bytes(seed=1),
        "unknown-operator.onnx": model_bytes("Frobnicate"),
        "unknown-domain.onnx": model_bytes("house.own.Frobnicate"),
        "truncated.onnx": good[: len(good) // 2],
        "empty.onnx": b"",
        "text.onnx": b"I am a letter, not a model.\n" * 20,
        "no-picture.jpg": b"no picture",
        "text.npy": b"no array",
        "broken.toml": b"kind = ",
        "misspelt.toml": b'knd = "image"',
        "no-profile.json": b"{}",
        "menu.json": _MENU,
        "fleet.toml": _FLEET,
        "no-certificate.pem": b"a letter",
        "garbled.pem": b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
        "token": b"open-sesame\n",
        "wrong-token": b"open-barley\n",
        "two-words": b"open sesame\n",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "folder.onnx").mkdir()
    (folder / "empty").mkdir()
    _write_arrays(folder)
    network = midstream.load("digits")
    first = [
        cut for cut in midstream.position_cuts(network.graph) if cut.tensors == ("relu1",)
    ]
    midstream.save_partition(
        midstream.partition(network, cuts=first), folder / "early.midstream"
    )
    return folder


def _write_arrays(folder: Path) -> None:
    arrays: dict[str, Array] = {
        "x": np.ones((3, 8), np.float32),
        "wrong-shape": np.ones((2, 5), np.float32),
        "wrong-rank": np.ones((2, 2, 2, 8), np.float32),
        "wrong-dtype": np.ones((1, 8), np.complex64),
        "strings": np.array([["a"] * 8]),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.savez(folder / "wrong-name.npz", z=arrays["x"], q=arrays["x"])


@final
@dataclass(frozen=True, slots=True)
class Cloud:
    """A server in a process of its own: what it said when it listened."""

    process: subprocess.Popen[str]
    said: Mapping[str, Any]

    @property
    def address(self) -> str:
        address: str = self.said["listening"]
        return address


@contextmanager
def serving(arguments: str, *, cwd: Path) -> Iterator[Cloud]:
    """`midstream cloud serve ARGUMENTS` on a free port; told to end at the end."""
    words = command_line(f"cloud serve {arguments} --listen 127.0.0.1:0 --json")
    with subprocess.Popen(
        words, cwd=cwd, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield Cloud(process, json.loads(process.stdout.readline()))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)


@pytest.fixture(scope="session")
def start_cloud(models: Path) -> Callable[[str], Any]:
    """Opens a context: a server of one's own, to be killed."""
    return lambda arguments: serving(arguments, cwd=models)


@pytest.fixture(scope="session")
def cloud(models: Path) -> Iterator[Cloud]:
    """The server that tests share: digits cut as ever, digits cut early, a tiny network."""
    with serving("digits early.midstream tiny.onnx --runs 3", cwd=models) as cloud:
        yield cloud
    assert cloud.process.returncode == 0


@pytest.fixture(scope="session")
def guarded_cloud(models: Path) -> Iterator[Cloud]:
    """A server that wants a token."""
    with serving("tiny.onnx --runs 0 --token-file token", cwd=models) as cloud:
        yield cloud


@final
@dataclass(frozen=True, slots=True)
class Started:
    """A command under way, and all the processes that it started."""

    process: subprocess.Popen[str]
    mark: str
    folder: Path

    def everyone(self) -> list[int]:
        """Who of them is alive: all inherit a mark in their environment, orphans too."""
        alive = psutil.process_iter(["environ"])
        return [p.pid for p in alive if self.mark in (p.info["environ"] or {})]

    def leftovers(self) -> list[str]:
        """Temporary files that are still there."""
        return [path.name for path in self.folder.iterdir()]

    def wait_for(self, count: int) -> None:
        """Until that many processes are alive."""
        end_s = time.monotonic() + PATIENCE_S
        while len(self.everyone()) < count:
            assert self.process.poll() is None, "it must not end before it is told to"
            assert time.monotonic() < end_s
            threading.Event().wait(0.02)


@pytest.fixture
def start(models: Path, tmp_path: Path) -> Iterator[Callable[[str], Started]]:
    """Starts `midstream ARGUMENTS` with its temporary files in a folder of its own."""
    begun: list[subprocess.Popen[str]] = []

    def start(arguments: str) -> Started:
        mark = f"MIDSTREAM_TEST_{uuid.uuid4().hex}"
        begun.append(
            subprocess.Popen(
                command_line(arguments),
                cwd=models,
                env=environment(**{mark: "1", "TMPDIR": str(tmp_path)}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return Started(begun[-1], mark, tmp_path)

    yield start
    for process in begun:
        with process:
            process.kill()


class _Page(BaseHTTPRequestHandler):
    """Says the same to everyone, and nothing to the log."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def strangers() -> Iterator[Mapping[str, str]]:
    """Addresses of servers that are not midstream's, by what they are."""
    web = HTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    other = grpc.server(ThreadPoolExecutor(1))
    other_port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    with socket.create_server(("127.0.0.1", 0)) as mute, socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        yield {
            "a web server": f"127.0.0.1:{web.server_port}",
            "another gRPC service": f"127.0.0.1:{other_port}",
            "a mute TCP server": f"127.0.0.1:{mute.getsockname()[1]}",
            "nobody": f"127.0.0.1:{free.getsockname()[1]}",
        }
    other.stop(None).wait(PATIENCE_S)
    web.shutdown()
    web.server_close()
    thread.join(PATIENCE_S)


@final
@dataclass(frozen=True, slots=True)
class Schema:
    """docs/reference/json.md as a machine reads it: types of fields, and of documents."""

    types: Mapping[str, Mapping[str, str]]
    documents: Mapping[str, str]

    def check(self, value: Any, kind: str, where: str = "the document") -> None:
        """That `value` is what the page says of `kind`, with exactly its fields."""
        if kind.startswith("list of "):
            assert isinstance(value, list), f"{where} must be a list (not {value!r})"
            for at, each in enumerate(value):
                self.check(each, kind.removeprefix("list of "), f"{where}[{at}]")
        elif kind.startswith("map of "):
            assert isinstance(value, dict), f"{where} must be an object (not {value!r})"
            for key, each in value.items():
                self.check(each, kind.removeprefix("map of "), f"{where}.{key}")
        elif " or " in kind:
            first, _, others = kind.partition(" or ")
            self.check(value, first if self._is_simple(value, first) else others, where)
        elif kind in self.types:
            assert isinstance(value, dict), f"{where} must be an object (not {value!r})"
            fields = self.types[kind]
            assert set(value) == set(fields), f"{where} must have the fields of {kind}"
            for name, each in value.items():
                self.check(each, fields[name], f"{where}.{name}")
        else:
            assert self._is_simple(value, kind), f"{where} must be {kind} (not {value!r})"

    def _is_simple(self, value: Any, kind: str) -> bool:
        if kind in self.types:
            return isinstance(value, dict)
        if isinstance(value, bool) or value is None:
            return kind == ("null" if value is None else "boolean")
        wanted: dict[str, tuple[type, ...]] = {
            "string": (str,),
            "integer": (int,),
            "number": (int, float),
            "object": (dict,),
        }
        return isinstance(value, wanted.get(kind, ()))


@pytest.fixture(scope="session")
def schema() -> Schema:
    types: dict[str, dict[str, str]] = {}
    documents: dict[str, str] = {}
    fields: dict[str, str] = documents
    for line in (ROOT / "docs/reference/json.md").read_text().splitlines():
        if line.startswith("### "):
            fields = types.setdefault(line.removeprefix("### "), {})
        elif row := re.match(r"\| `([^`]+)` \| ([^|]+?) \|", line):
            fields[row[1]] = row[2]
    return Schema(types, documents)
