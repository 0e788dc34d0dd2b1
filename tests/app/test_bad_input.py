"""Whatever is wrong with what a user gives: one sentence, its exit code, no traceback."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.app.conftest import Cloud, Ran

    Run = Callable[[str], Ran]

FAILED, USAGE = 1, 2

#: Command line (in the folder of models) -> exit code, part of the sentence.
MODELS = {
    "plan --link lte": (USAGE, "missing argument 'MODEL'"),
    "plan resnet8 --link lte": (USAGE, "did you mean 'resnet18'?"),
    "profile nosuch.onnx": (USAGE, "nosuch.onnx cannot be read"),
    "profile folder.onnx": (USAGE, "folder.onnx cannot be read (is a directory)"),
    "plan text.onnx --link lte": (FAILED, "text.onnx is not one"),
    "verify empty.onnx": (FAILED, "empty.onnx is not one"),
    "profile truncated.onnx": (FAILED, "truncated.onnx is not one"),
    "partition text.onnx -o out": (FAILED, "text.onnx is not one"),
    "profile unknown-operator.onnx": (FAILED, "has no Frobnicate in opset"),
    "pair unknown-operator.onnx": (FAILED, "has no Frobnicate in opset"),
    "cloud serve unknown-domain.onnx": (FAILED, "house.own"),
    "cloud serve empty": (USAGE, "must hold ONNX files or partitions; empty has none"),
    "cloud serve digits digits": (USAGE, "two models must not share a name"),
    "cloud serve": (USAGE, "missing argument 'MODEL'"),
    "partition early.midstream -o out": (USAGE, "early.midstream is a partition"),
    "plan early.midstream --link lte --forbid relu9 --runs 3": (
        USAGE,
        "'relu9' is of none: its cuts are cloud-only (the input), ",
    ),
    "plan early.midstream --link lte --scale 1/255": (USAGE, "is part of the partition"),
}
INPUTS = {
    "profile tiny.onnx --input nosuch.npz": (USAGE, "no such file or folder: nosuch.npz"),
    "profile tiny.onnx --input wrong-shape.npy": (
        USAGE,
        "must be samples of float32 [batch, 8]",
    ),
    "edge run tiny.onnx --input wrong-rank.npy": (
        USAGE,
        "must be samples of float32 [batch, 8]",
    ),
    "verify tiny.onnx --input wrong-dtype.npy": (USAGE, "must be float32 (not complex64)"),
    "edge run tiny.onnx --input strings.npy": (USAGE, "x must be float32"),
    "edge run tiny.onnx --input text.npy": (USAGE, "text.npy must be an .npz or .npy"),
    "edge run tiny.onnx --input wrong-name.npz": (USAGE, "x is missing (it holds z, q)"),
    "profile tiny.onnx --input no-picture.jpg": (USAGE, "because the model takes arrays"),
    "edge run resnet18 --input no-picture.jpg": (USAGE, "must be a picture that Pillow reads"),
    "edge run resnet18 --input empty": (USAGE, "empty must hold pictures"),
    "profile tiny.onnx --feed nosuch.toml": (USAGE, "a feed must be a readable file"),
    "profile tiny.onnx --feed broken.toml": (USAGE, "broken.toml must be a readable TOML"),
    "profile tiny.onnx --feed misspelt.toml": (USAGE, "did you mean 'kind'?"),
    "profile tiny.onnx --mean a,b": (USAGE, "--mean must be numbers"),
}
FLAGS = {
    "frobnicate": (USAGE, "no such command 'frobnicate': see midstream --help"),
    "plan tiny.onnx --netwrk lte": (USAGE, "no such option: --netwrk"),
    "plan tiny.onnx --json --link": (USAGE, "option '--link' requires an argument"),
    "plan tiny.onnx tiny.onnx --link lte": (USAGE, "unexpected extra argument"),
    "plan tiny.onnx": (USAGE, "a plan needs a link: give --link lte"),
    "plan tiny.onnx --link lt": (USAGE, "did you mean 'lte'?"),
    "pair tiny.onnx --link 8Mbit": (USAGE, 'rates and an RTT such as "8Mbit:40ms"'),
    "plan tiny.onnx --uplink 8": (USAGE, "'8' has no unit"),
    "plan tiny.onnx --uplink 8MB": (USAGE, "'8MB' has another): write 8Mbit"),
    "plan tiny.onnx --uplink fast": (USAGE, "a rate must be a number and a unit"),
    "plan tiny.onnx --link lte --rtt 40": (USAGE, "'40' has no unit): write 40ms"),
    "plan tiny.onnx --link lte --queue 5": (USAGE, "'5' has no unit"),
    "plan tiny.onnx --link lte --objective cheap": (USAGE, "--objective must be latency"),
    "pair tiny.onnx --objective cheap": (USAGE, "--objective must be latency"),
    "plan tiny.onnx --link lte --codecs zip --runs 3": (
        USAGE,
        "a codec must be one of raw",
    ),
    "plan tiny.onnx --link lte --deadline 1us --runs 3": (FAILED, "loosen that constraint"),
    "plan tiny.onnx --link lte --max-edge-memory 64": (USAGE, "'64' has no unit"),
    "plan tiny.onnx --link lte --edge nosuch.json": (USAGE, "must be a readable file"),
    "plan tiny.onnx --link lte --edge no-profile.json": (USAGE, "must be a profile as"),
    "plan tiny.onnx --link lte --edge-slowdown x": (USAGE, "'--edge-slowdown'"),
    "plan tiny.onnx --link lte --draw plan.gif": (USAGE, "must be .png, .svg, .pdf"),
    "demo -o demo.gif": (USAGE, "must be .png, .svg, .pdf"),
    "profile tiny.onnx --threads 0": (USAGE, "'--threads'"),
    "profile tiny.onnx --runs 1": (USAGE, "'--runs'"),
    "profile tiny.onnx --runs 3 -o text.onnx/profile.json": (USAGE, "not a directory"),
    "partition tiny.onnx --no-measure --runs 3 -o text.onnx": (USAGE, "text.onnx is a file"),
    "partition tiny.onnx --no-measure --runs 3 -o .": (
        USAGE,
        "must have its folder to itself",
    ),
    "calibrate tiny.onnx --samples 1 -o text.onnx": (USAGE, "text.onnx is a file"),
    "partition tiny.onnx --at nosuch": (USAGE, "--at must be the name of a layer"),
    "verify tiny.onnx --cuts some": (USAGE, "--cuts must be partition or all"),
    "verify tiny.onnx --codec zip": (USAGE, "a codec must be one of raw"),
    "cloud serve tiny.onnx digits --profile gone.json": (USAGE, "must be a readable file"),
    "edge run tiny.onnx --adaptive": (USAGE, "--adaptive must be given with --server"),
    "edge run tiny.onnx --server 127.0.0.1:1 --policy race": (
        USAGE,
        "given with --adaptive",
    ),
    "edge run tiny.onnx --server 127.0.0.1:1 --adaptive --every 0s": (USAGE, "more than 0s"),
    "edge run tiny.onnx --server 127.0.0.1:1 --adaptive --compare": (
        USAGE,
        "--compare must not be given with --adaptive",
    ),
    "edge run tiny.onnx --server 127.0.0.1:1 --adaptive --policy oracle --trace lte": (
        USAGE,
        "needs --trace-origin",
    ),
}
PEERS = {
    "cloud serve tiny.onnx --listen nowhere": (USAGE, "an address must be host:port"),
    "cloud serve tiny.onnx --listen 127.0.0.1:99999": (USAGE, "an address must be host:port"),
    "cloud serve tiny.onnx --listen 0.0.0.0:0": (USAGE, "say --insecure"),
    "cloud serve tiny.onnx --listen 192.0.2.1:1 --insecure --runs 0": (
        USAGE,
        "able to listen",
    ),
    "cloud serve tiny.onnx --cert garbled.pem": (USAGE, "give both --cert and --key"),
    "cloud serve tiny.onnx --client-ca garbled.pem": (USAGE, "--client-ca needs TLS"),
    "cloud serve tiny.onnx --cert a.pem --key b.pem": (USAGE, "must be a readable file"),
    "cloud serve tiny.onnx --cert no-certificate.pem --key garbled.pem": (USAGE, "a PEM file"),
    "cloud serve tiny.onnx --cert garbled.pem --key garbled.pem": (USAGE, "belong together"),
    "cloud serve tiny.onnx --token-file nosuch": (USAGE, "the token must be a readable file"),
    "cloud serve tiny.onnx --token-file two-words": (USAGE, "must hold one word"),
    "cloud describe --server nowhere": (USAGE, "an address must be host:port"),
    "cloud describe --server 192.0.2.1:1": (USAGE, "say --insecure"),
    "edge run tiny.onnx --server 192.0.2.1:1": (USAGE, "say --insecure"),
    "cloud health --server 127.0.0.1:1 --ca nosuch.pem": (USAGE, "must be a readable file"),
    "edge run tiny.onnx --server 127.0.0.1:1 --cert a.pem": (USAGE, "give both or neither"),
    "edge run tiny.onnx --server 127.0.0.1:1 --timeout 5": (USAGE, "'5' has no unit"),
    "edge run tiny.onnx --server 127.0.0.1:1 --compare": (
        FAILED,
        "the connection was refused",
    ),
    "edge run tiny.onnx --server 127.0.0.1:1 --segments 1": (FAILED, "connection was refused"),
}


@pytest.mark.parametrize("line", [*MODELS, *INPUTS, *FLAGS, *PEERS])
def test_what_cannot_be_taken_is_told_in_one_sentence(command: Run, line: str) -> None:
    code, part = (MODELS | INPUTS | FLAGS | PEERS)[line]
    done = command(line if line == "frobnicate" or "--json" in line else f"{line} --json")
    assert part in done.complaint
    assert done.code == code


def test_a_port_that_is_taken_is_told(command: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(f"cloud serve tiny.onnx --runs 0 --listen 127.0.0.1:{port} --json")
    assert f"must be able to listen on 127.0.0.1:{port}" in done.complaint
    assert done.code == USAGE


@pytest.mark.parametrize(
    ("peer", "part"),
    [
        ("a web server", "must speak midstream.v1"),
        ("another gRPC service", "must speak midstream.v1"),
        ("a mute TCP server", "a server must answer at"),
        ("nobody", "the connection was refused"),
    ],
)
def test_a_peer_that_is_no_midstream_server_is_told(
    command: Run, strangers: Mapping[str, str], peer: str, part: str
) -> None:
    done = command(f"cloud describe --server {strangers[peer]} --json")
    assert part in done.complaint
    assert done.code == FAILED


@pytest.mark.parametrize("peer", ["a web server", "another gRPC service"])
def test_an_edge_does_not_hide_that_its_server_is_none(
    command: Run, strangers: Mapping[str, str], peer: str
) -> None:
    done = command(f"edge run tiny.onnx --server {strangers[peer]} --json")
    assert "must speak midstream.v1" in done.complaint
    assert done.code == FAILED


@pytest.mark.parametrize(
    ("flags", "code", "part"),
    [
        ("other.onnx", FAILED, "both sides must hold the same model"),
        ("early.midstream --name digits", FAILED, "holds it cut at other places"),
        ("digits --name nosuch", USAGE, "--name must be a model that the server holds"),
        ("tiny.onnx --cut nosuch", USAGE, "--cut must be one of cloud-only"),
        ("tiny.onnx --cut cloud-only --codec png", USAGE, "png"),
        ("tiny.onnx --segments 99", USAGE, "--segments must be at most"),
        (
            "tiny.onnx --compare --segments 1",
            USAGE,
            "not be given with --compare",
        ),
    ],
)
def test_an_edge_that_does_not_fit_its_server_is_told(
    command: Run, cloud: Cloud, flags: str, code: int, part: str
) -> None:
    done = command(f"edge run {flags} --server {cloud.address} --runs 3 --json")
    assert part in done.complaint
    assert done.code == code


@pytest.mark.parametrize("flag", ["", "--token-file wrong-token"])
def test_only_the_right_token_opens_a_guarded_server(
    command: Run, guarded_cloud: Cloud, flag: str
) -> None:
    refused = command(f"edge run tiny.onnx --server {guarded_cloud.address} {flag} --json")
    assert "must be given credentials that it accepts" in refused.complaint
    assert refused.code == FAILED


def test_planning_without_the_servers_profile_is_told(
    command: Run, guarded_cloud: Cloud
) -> None:
    done = command(
        f"edge run tiny.onnx --server {guarded_cloud.address} --token-file token --json"
    )
    assert "planning needs the server's profile of tiny" in done.complaint
    assert done.code == FAILED


def test_a_certificate_comes_with_its_own_key(command: Run, models: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    for name in ("one", "two"):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subprocess.run(
            ["openssl", "req", "-x509", *key, "-subj", f"/CN={name}", "-days", "2",
             "-keyout", f"{name}.key", "-out", f"{name}.pem"],
            cwd=models, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
    done = command("cloud serve tiny.onnx --cert one.pem --key two.key --json")
    assert "give the two that belong together" in done.complaint
    assert done.code == USAGE


def test_an_edge_of_a_pair_that_was_asked_wrongly_ends_the_pair_so(command: Run) -> None:
    written = command("partition tiny.onnx --no-measure --runs 3 -o for-pair.midstream --json")
    assert written.code == 0
    done = command("pair for-pair.midstream --link 200Mbit:1ms --input wrong-shape.npy --json")
    assert done.code == USAGE
    assert done.out == ""
    assert "Traceback" not in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("error: the edge process ended: ")
    assert "must be samples of float32 [batch, 8]" in last


def test_a_cut_that_fails_is_in_the_document_and_in_the_exit_code(command: Run) -> None:
    done = command("verify tiny.onnx --codec int8 --tolerance 0 --json")
    assert done.code == FAILED
    assert '"failures": [' in done.out
    assert done.err.startswith("error: ")


def test_the_sentence_is_the_same_without_json(command: Run) -> None:
    line = "profile text.onnx"
    assert command(line).complaint == command(f"{line} --json").complaint
