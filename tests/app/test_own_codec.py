"""Codecs of users: checked, named on the command line and in files, and run over the wire."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from examples.own_codec import BlockFloat, make

import midstream
from midstream.testing import check_codec
from midstream_edge.link.describe import describe
from midstream_partitioner.codec_plugins import load_codecs
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.execution.crossing import decode_crossing, encode_crossing
from midstream_wire.codecs import (
    CODECS,
    Codec,
    DecodeBlock,
    Encoding,
    codec,
    encode_bytes,
)
from midstream_wire.codecs.header import (
    FRAME_NBYTES,
    frame_of,
    header_checksum,
    header_nbytes,
    parse_header,
)
from midstream_wire.codecs.plugins import loaded_codes, loaded_names
from midstream_wire.errors import CodecError, UsageError
from midstream_wire.frames import CodecName
from midstream_wire.tensors import Array
from midstream_wire.v1 import midstream_pb2 as pb
from midstream_wire.v1.midstream_pb2_grpc import MidstreamStub

if TYPE_CHECKING:
    from tests.app.conftest import Announce, Cloud, Ran

    Run = Callable[[str], Ran]
    StartCloud = Callable[[str], Any]

pytestmark = pytest.mark.usefixtures("no_codec_plugins")

OWN = "python:examples.own_codec:make"
PATIENCE_S = 60.0


# What check_codec finds.


@pytest.mark.parametrize("id", [*CODECS, "ec:0.02", "ec@300B", "ecc:2", "ctx:0.1", "webp:20"])
def test_our_own_codecs_keep_what_is_asked_of_users_codecs(id: str) -> None:
    check_codec(codec(id))


@pytest.mark.parametrize("bits", ["", "2", "5", "8"])
def test_the_example_keeps_it_too(bits: str) -> None:
    check_codec(make(bits), decoder=make(""))


@dataclass(frozen=True, slots=True)
class Broken(Codec):
    """Raw bytes of floats, broken in one way."""

    how: str = ""

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        return dtype == "float32" or self.how == "claims too much"

    def error_bound(self, array: Array) -> float | None:
        return 0.0

    def begin(self, array: Array) -> Encoding | None:
        count = [0]

        def encode(block: Array, start: int) -> list[bytes | memoryview]:
            count[0] += 1
            if self.how == "changes its input" and block.size and block.flags.writeable:
                block[0] += 1
            if self.how == "raises":
                raise ZeroDivisionError("for no reason")
            if self.how == "too long":
                return [b"\0" * (2 * block.nbytes + 5000)]
            salt = np.random.default_rng().bytes(4) if self.how == "chance" else b""
            return [block.tobytes() + salt]

        return Encoding(b"", encode)

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        def decode(body: memoryview, out: Array, start: int) -> None:
            data = np.frombuffer(body, "<f4", out.size) if out.size else out
            if self.how == "reads beyond":
                whole = np.frombuffer(memoryview(body.obj), np.uint8)
                data = data + whole[0] * 0 + (len(whole) - len(body)) % 7
            if self.how == "hoards":
                np.zeros(100 << 20, np.uint8)
            if self.how == "forgets":
                out[: out.size // 2] = data[: out.size // 2]
                return
            out[:] = data
            if self.how == "writes beyond" and out.base is not None:
                out.base.view(np.uint8).reshape(-1)[:4] = 0

        return decode


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("changes its input", "must not change what it encodes"),
        ("raises", "must encode what it accepts, or begin with None"),
        ("too long", "must make 1 to"),
        ("chance", "must encode alike twice"),
        ("forgets", "must (keep every bit|fill all its block)"),
        ("writes beyond", "must (keep every bit|write nothing)"),
        ("reads beyond", "must keep every bit"),
        ("claims too much", "must keep every bit"),
        ("hoards", "in little more, and took"),
    ],
)
def test_a_codec_that_is_wrong_is_found_out(how: str, told: str) -> None:
    broken = Broken("broken", lossless=True, version="1", how=how)
    with pytest.raises(AssertionError, match=f"codec broken.*{told}"):
        check_codec(broken)


def test_a_codec_that_is_right_is_not_found_wrong() -> None:
    check_codec(Broken("broken", lossless=True, version="1"))


@dataclass(frozen=True, slots=True)
class Optimist(BlockFloat):
    """Promises half of the error that it makes."""

    def error_bound(self, array: Array) -> float | None:
        bound = BlockFloat.error_bound(self, array)
        return None if bound is None else bound / 8


def test_a_bound_that_is_not_kept_is_named_with_its_case() -> None:
    with pytest.raises(AssertionError, match=r"must keep its error within .* of seed 3"):
        check_codec(Optimist("bfp", lossless=False, version="1"), seed=3)


def test_names_that_would_not_travel_are_found_out() -> None:
    with pytest.raises(AssertionError, match="version of the codec bfp must be"):
        check_codec(BlockFloat("bfp", lossless=False))


# How they are named.


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("python:examples.own_codec:nosuch", "must have a function nosuch"),
        ("python:examples.nosuch:make", "must import"),
        ("python:json:dumps", "must derive from midstream.Codec"),
        ("python:json:loads", "must return a codec, and raised"),
        ("python:json", "must be named as python:module:function"),
        ("bfp", "must be named as python:MODULE:NAME, or be announced by an installed"),
    ],
)
def test_what_is_no_codec_is_told_in_one_sentence(name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_codecs([name])
    assert loaded_names() == ()


def test_an_installed_package_announces_its_codecs_by_name(
    announce: Announce,
) -> None:
    announce("midstream.codecs", "blocks = examples.own_codec:make\nbroken = nosuch:make\n")
    with pytest.raises(UsageError):  # nothing is loaded because it is installed
        codec("bfp")
    assert load_codecs(["blocks"]) == ("bfp:8",)
    assert codec("bfp:3").id == "bfp:3"
    with pytest.raises(UsageError, match="'broken' of an installed package must load"):
        load_codecs(["broken"])
    with pytest.raises(UsageError, match="did you mean blocks"):
        load_codecs(["bloks"])


@pytest.mark.parametrize("line", ["plan digits --link lte", "calibrate digits -o x.midstream"])
def test_a_command_loads_what_it_is_told_to_and_nothing_else(line: str, command: Run) -> None:
    refused = command(f"{line} --codecs raw,bfp:4 --runs 3")
    assert refused.code == 2
    assert "must be one of raw" in refused.err
    assert "a codec of your own is loaded with --codec-plugin" in refused.err
    wrong = command(f"{line} --codec-plugin python:examples.own_codec:nosuch")
    assert (wrong.code, wrong.out) == (2, "")
    assert "must have a function nosuch" in wrong.err


def test_a_plan_prices_it_and_keeps_it_out_where_it_was_not_named(command: Run) -> None:
    line = f"plan digits --link 3g --runs 3 --json --codec-plugin {OWN}"
    named = json.loads(command(f"{line} --codecs raw,bfp:4").out)
    codecs = {each["codec"] for each in named["candidates"] if each["cut"] != "edge-only"}
    assert codecs == {"raw", "bfp:4"}
    timed = [each for each in named["candidates"] if each["codec"] == "bfp:4"]
    assert all(each["estimate"]["encode_s"] > 0 for each in timed)
    unnamed = json.loads(command(line).out)
    assert "bfp:8" not in {each["codec"] for each in unnamed["candidates"]}
    reasons = {each["reason"] for each in unnamed["rejected"] if each["codec"] == "bfp:8"}
    assert reasons == {"sends bfp:8, which is lossy and was not named"}


def test_a_calibration_measures_it_and_its_budget_holds(command: Run, tmp_path: Path) -> None:
    folder = tmp_path / "digits.midstream"
    rng = np.random.default_rng(0)
    images = rng.random((300, 1, 8, 8), np.float32)
    np.savez(tmp_path / "data.npz", images=images, labels=np.zeros(300, np.int64))
    line = f"calibrate digits --data {tmp_path}/data.npz -o {folder} --runs 3 --json"
    done = command(f"{line} --codecs raw,bfp:2,bfp:8 --codec-plugin {OWN}")
    assert done.code == 0, done.err
    plan = f"plan {folder} --link 3g --runs 3 --min-agreement 97% --json"
    found = json.loads(command(f"{plan} --codec-plugin {OWN}").out)
    inner = {each["codec"] for each in found["candidates"]}
    assert "bfp:8" in inner
    rejected = {each["codec"]: each["reason"] for each in found["rejected"]}
    assert "97 %" in rejected["bfp:2"] or "agree" in rejected["bfp:2"]
    # The folder stays of use to those who do not have the codec.
    without = json.loads(command(plan).out)
    rejected = {each["codec"]: each["reason"] for each in without["rejected"]}
    assert rejected["bfp:8"].startswith(
        "sends bfp:8, which this process does not have (--codec"
    )


def test_verify_takes_it(command: Run) -> None:
    done = command(f"verify digits --codec bfp:8 --codec-plugin {OWN} --json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["codec"] == "bfp:8"


# Over the wire, in processes of their own.


def test_a_pair_runs_it_predicted_beside_measured(command: Run) -> None:
    line = "pair digits --link 20Mbit:20ms --edge-slowdown 2 --requests 3 --json"
    done = command(f"{line} --codec-plugin {OWN} --codecs bfp:6")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    own = next(each for each in document["placements"] if each["codec"] == "bfp:6")
    assert own["measured"]["uplink_s"] > 0
    assert own["predicted"]["uplink_s"] > 0
    assert own["max_relative_error"] < 1e-4  # of the network on what the codec delivered
    assert document["answered"] == 3


EXPERIMENT = f"""
duration = "1s"
attempts = 2
policies = ["python:examples.own_policy:make", "cloud-only:bfp:6"]
codec_plugins = ["{OWN}"]
models = ["digits"]
traces = ["20Mbit"]
link.backend = "proxy"
link.rtt = "40ms"
edge.slowdown = 8
planning.codecs = ["bfp:6"]
"""


def test_an_experiment_runs_a_users_policy_and_codec(command: Run, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(EXPERIMENT)
    done = command(f"experiment {tmp_path}/own.toml -o {tmp_path}/out --json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["failures"] == []
    assert document["runs"] + len(document["void"]) == 2
    told = json.dumps([document["void"], [*document["policies"]]])
    assert "python:examples.own_policy:make" in told
    if any("bfp" in each["run"] for each in document["void"]):
        pytest.skip("this machine is too busy to emulate a link")
    with gzip.open(tmp_path / "out" / "results.csv.gz", "rt", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["codec"] == "bfp:6"]
    both = [row for row in rows if row["where"] == "cloud" and row["predicted_s"]]
    assert both
    for row in both:  # predicted beside measured
        assert float(row["predicted_s"]) > 0
        assert float(row["latency_s"]) > 0


def test_a_server_without_it_refuses_by_name_and_the_edge_carries_on(
    command: Run, cloud: Cloud
) -> None:
    line = f"edge run digits --server {cloud.address} --runs 3 --requests 4 --json"
    done = command(f"{line} --codec-plugin {OWN} --codecs raw,bfp:4")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["answered"] == 4
    assert "the codec bfp must be loaded on the server, and is not" in done.err
    reasons = {each["reason"] for each in document["plan"]["rejected"]}
    assert any("bfp:4, which the server does not take" in each for each in reasons)
    for demand in (
        "--cut cloud-only --codec bfp:4",
        "--codecs bfp:4 --segments 1",
        "--codecs bfp:4 --adaptive --policy fixed:cloud-only:bfp:4",
    ):
        done = command(f"{line} --codec-plugin {OWN} {demand}")
        assert done.code in (1, 2)
        assert "the codec bfp must be loaded on the server" in done.err


def test_a_server_with_it_serves_those_without_it(
    command: Run, start_cloud: StartCloud
) -> None:
    with start_cloud(f"digits --runs 3 --codec-plugin {OWN}") as server:
        line = f"edge run digits --server {server.address} --runs 3 --requests 4"
        plain = command(f"{line} --cut cloud-only --codec raw --require-cloud --json")
        assert plain.code == 0, plain.err
        line += " --cut cloud-only --codec bfp:5 --require-cloud --json"
        own = command(f"{line} --codec-plugin {OWN}")
        assert own.code == 0, own.err
        (model,) = describe(server.address)
        assert model.own_codecs == (CodecName("bfp", "1"),)


_OTHERS = """
from examples.own_codec import BlockFloat

def newer(setting):
    return BlockFloat("bfp", lossless=False, version="2", bits=int(setting or 8))

def other(setting):
    return BlockFloat("aaa", lossless=False, version="1", bits=int(setting or 8))
"""


@pytest.fixture
def others(models: Path) -> str:
    """A module where commands run, with another version of the codec, and another codec."""
    (models / "codecs_of_others.py").write_text(_OTHERS)
    return "python:codecs_of_others"


def test_another_version_is_refused_and_the_edge_carries_on(
    command: Run, start_cloud: StartCloud, others: str
) -> None:
    with start_cloud(f"digits --runs 3 --codec-plugin {OWN}") as server:
        line = f"edge run digits --server {server.address} --runs 3 --requests 3 --json"
        done = command(f"{line} --codecs raw,bfp:4 --codec-plugin {others}:newer")
        assert done.code == 0, done.err
        assert json.loads(done.out)["answered"] == 3
        assert "of one version on both sides (the server has 1, the edge 2)" in done.err


def test_both_sides_may_load_in_any_order(start_cloud: StartCloud, others: str) -> None:
    load_codecs([OWN])
    part = midstream.partition("digits")
    chain, x = Chain(part), midstream.inputs(part)[0]
    delivered = decode_crossing(chain, 0, encode_crossing(chain, 0, "bfp:3", x))
    due = chain.run(delivered, 0, chain.last)
    plugins_of_the_server = f"--codec-plugin {others}:other --codec-plugin {OWN}"
    with (
        start_cloud(f"digits --runs 0 {plugins_of_the_server}") as server,
        midstream.connect(part, server.address, (0, "bfp:3")) as session,
    ):
        answer = session.infer(x)
    assert (answer.where, answer.codec) == ("cloud", "bfp:3")
    for name, array in answer.outputs.items():
        assert np.array_equal(array, due[name])


def test_a_policy_is_not_given_what_the_server_refuses(command: Run, cloud: Cloud) -> None:
    line = f"edge run digits --server {cloud.address} --runs 3 --adaptive --duration 1s --json"
    done = command(f"{line} --codecs raw,bfp:4 --codec-plugin {OWN}")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert {each["codec"] for each in document["menu"]} == {"raw"}
    assert document["lost"] == document["failed"] == 0


def test_a_simulation_runs_it(command: Run) -> None:
    line = "simulate digits --link 3g --policy cloud-only:bfp:4 --duration 5s --runs 3 --json"
    done = command(f"{line} --codecs raw,bfp:4 --codec-plugin {OWN}")
    assert done.code == 0, done.err
    assert "cloud-only:bfp:4" in done.out


def test_hostile_bytes_are_refused_by_name_and_the_next_request_is_served(
    start_cloud: StartCloud,
) -> None:
    load_codecs([OWN])
    with start_cloud(f"digits --runs 0 --codec-plugin {OWN}") as server:
        for params in (b"", b"\xff", b"\x08" * 1000):
            with pytest.raises(grpc.RpcError, match="bfp must have one parameter") as refused:
                _infer(server.address, loaded_names(), params=params)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert _infer(server.address, loaded_names()).tensors


def _infer(
    address: str, codecs: tuple[CodecName, ...], *, params: bytes | None = None
) -> pb.InferReply:
    """What crosses the first cut of digits as bfp, in the unary form."""
    part = midstream.partition("digits")
    chain_input = midstream.inputs(part)[0]
    (spec,) = part.crossing(0)
    payload = encode_bytes(codec("bfp:6"), chain_input[spec.name], codes=loaded_codes())
    if params is not None:  # under a right checksum
        front = header_nbytes(payload)
        header = replace(parse_header(payload[:front]), params=params).pack()
        body = payload[front + FRAME_NBYTES :]
        nbytes = chain_input[spec.name].nbytes
        frame = frame_of([body], decoded_nbytes=nbytes, seed=header_checksum(header))
        payload = header + frame.pack() + body
    hello = pb.Hello(
        model="digits",
        partition_digest=part.digest,
        codecs=[pb.CodecName(name=each.name, version=each.version) for each in codecs],
    )
    request = pb.InferRequest(
        hello=hello, tensors=[pb.Tensor(name=spec.name, payload=payload)]
    )
    with grpc.insecure_channel(address) as channel:
        reply: pb.InferReply = MidstreamStub(channel).Infer(request, timeout=PATIENCE_S)
        return reply


def test_the_unary_form_names_codecs_too(cloud: Cloud, start_cloud: StartCloud) -> None:
    load_codecs([OWN])
    with start_cloud(f"digits --runs 0 --codec-plugin {OWN}") as server:
        assert _infer(server.address, loaded_names()).tensors
        cases = {
            (): r"agreed on \(not number 128\)",
            (CodecName("bfp", "2"),): "the server has 1, the edge 2",
        }
        for names, told in cases.items():
            with pytest.raises(grpc.RpcError, match=told):
                _infer(server.address, names)
    with pytest.raises(grpc.RpcError, match="the codec bfp must be loaded on the server"):
        _infer(cloud.address, loaded_names())


def test_a_server_that_comes_back_without_it_is_sent_lossless(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    load_codecs([OWN])
    part = midstream.partition("digits")
    x = midstream.inputs(part)[0]
    with midstream.connect(part, cloud.address, (0, "bfp:4")) as session:
        answers = [session.infer(x) for _ in range(3)]
    assert {each.where for each in answers} == {"cloud"}
    assert {each.codec for each in answers} == {"lossless"}
    told = [each.message for each in caplog.records if "in place of bfp:4" in each.message]
    assert len(told) == 1
    assert "the codec bfp must be loaded on the server" in told[0]


def test_switching_between_it_and_others_keeps_every_answer() -> None:
    midstream.load_codec(make)
    part = midstream.partition("digits")
    x = midstream.inputs(part)[0]
    with (
        midstream.serve(part) as server,
        midstream.connect(part, server, (0, "bfp:8")) as session,
    ):
        for name in ("bfp:8", "raw", "bfp:3", "bfp"):
            for k in range(2):
                session.use(k, name)
                answer = session.infer(x)
                assert (answer.where, answer.codec) == ("cloud", codec(name).id)


def test_an_edge_whose_codec_fails_answers_by_itself() -> None:
    class Fails(BlockFloat):
        def begin(self, array: Array) -> Encoding | None:
            raise CodecError("nothing works today")

    midstream.load_codec(lambda _: Fails("bad", lossless=False, version="1"))
    part = midstream.partition("digits")
    with (
        midstream.serve(part) as server,
        midstream.connect(part, server, (0, "bad:8")) as session,
    ):
        answer = session.infer(midstream.inputs(part)[0])
    assert answer.where == "edge-after-cloud-failed"


def test_what_crosses_is_measured_with_it() -> None:
    midstream.load_codec(make)
    part = midstream.partition("digits")
    measured = midstream.profile(part, runs=1)
    assert "bfp:8" in {cost.codec for cost in measured.codecs}
    state = midstream.inputs(part)[0]
    sizes = [encode_crossing(Chain(part), 0, f"bfp:{n}", state).nbytes for n in range(2, 9)]
    assert sizes == sorted(set(sizes))
