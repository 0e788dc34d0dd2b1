"""The rules of the house that no other tool checks, each as a claim about every file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = tuple(
    ROOT / path for path in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
)
MODULES = tuple(
    sorted(
        path
        for package in PACKAGES
        for path in package.rglob("*.py")
        if not path.stem.endswith(("_pb2", "_pb2_grpc"))
    )
)
DOCUMENTS = tuple(
    sorted(
        path
        for pattern in (
            "*.md",
            "examples/*.md",
            "docs/**/*.md",
            "docker/**/*.md",
            "benchmarks/**/*.md",
        )
        for path in ROOT.glob(pattern)
    )
)

#: Documents whose lines are as long as their entries.
LONG_LINES = ("ARCHITECTURE.md", "CHANGELOG.md")

#: What only some modules may import, and which (paths from the import root's folder up).
RESERVED: dict[str, frozenset[str]] = {
    "onnxruntime": frozenset(
        {
            "partitioner/midstream_partitioner/backends/onnxruntime_sessions.py",
            "partitioner/midstream_partitioner/backends/onnxruntime_backend.py",
        }
    ),
    "torch": frozenset(
        {
            "partitioner/midstream_partitioner/backends/torch_backend.py",
            "partitioner/midstream_partitioner/intake/torch_module.py",
        }
    ),
    "torchvision": frozenset({"partitioner/midstream_partitioner/backends/torch_backend.py"}),
    "onnx2pytorch": frozenset({"partitioner/midstream_partitioner/backends/torch_backend.py"}),
    "onnxscript": frozenset({"partitioner/midstream_partitioner/intake/torch_module.py"}),
    "grpc_tools": frozenset({"proto/midstream_wire/generate.py"}),
}

#: The wire's translation, and the two gRPC shells.
GENERATED_CODE_USERS = frozenset(
    {
        "proto/midstream_wire/messages.py",
        "proto/midstream_wire/unary.py",
        "edge/midstream_edge/link/channel.py",
        "cloud/midstream_cloud/service.py",
        "cloud/midstream_cloud/server.py",
    }
)

#: Formats that run code when they are read, and functions that run text.
UNSAFE_MODULES = frozenset(
    {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
)
UNSAFE_CALLS = frozenset({"eval", "exec", "compile", "__import__"})


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(path: Path) -> str:
    """Return a module's name as it is imported."""
    names = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(names).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Full names of all that a module imports, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text(), name_of(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_package_declares_its_types() -> None:
    assert [name_of(p) for p in PACKAGES if not (p / "py.typed").is_file()] == []


def test_every_import_root_of_the_build_is_known_to_every_tool() -> None:
    roots = [package.parent.name for package in PACKAGES]
    tools = PROJECT["tool"]
    assert tools["hatch"]["build"]["dev-mode-dirs"] == roots
    assert tools["pytest"]["ini_options"]["pythonpath"] == roots
    assert tools["mypy"]["mypy_path"] == roots
    assert tools["pyright"]["extraPaths"] == roots
    assert set(tools["importlinter"]["root_packages"]) == {
        package.name for package in PACKAGES
    }


@pytest.mark.parametrize("library", sorted(RESERVED))
def test_library_is_imported_where_it_belongs_and_nowhere_else(library: str) -> None:
    strays = {
        name_of(path)
        for path in MODULES
        if any(name.split(".")[0] == library for name in imports_of(path))
    }
    assert strays <= RESERVED[library]


def test_generated_code_is_imported_by_the_wire_and_the_shells_of_edge_and_cloud_alone() -> (
    None
):
    importers = {
        name_of(path)
        for path in MODULES
        if any(name.startswith("midstream_wire.v1.") for name in imports_of(path))
    }
    assert importers <= GENERATED_CODE_USERS


def test_importing_the_base_packages_imports_no_extra() -> None:
    """The base install must fit a small device: extras are imported where they are used."""
    extras = {
        "torch",
        "torchvision",
        "onnx2pytorch",
        "onnxscript",
        "matplotlib",
        "sklearn",
        "psutil",
    }
    base = [p for p in MODULES if name_of(p).split("/")[0] not in ("lab", "app")]
    eager = {
        name_of(path)
        for path in base
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
        if name.split(".")[0] in extras
    }
    assert eager == set()


#: What decides, live and simulated. Imported one after the other, in this order.
PURE = (
    "midstream_partitioner.planning.planner",
    "midstream_partitioner.planning.replan",
    "midstream_edge.policies.link_estimator",
    "midstream_edge.session.lifecycle",
    "midstream_edge.session.director",
    "midstream_edge.policies.registry",
    "midstream_edge.link.failure_detector",
    "midstream_lab.simulation.kernel.event_queue",
    "midstream_lab.simulation.pair.pair",
    "midstream_lab.simulation.fleet.fleet",
    "midstream_lab.simulation.sweep.sweep",
)


def test_what_decides_loads_no_runtime_and_no_transport() -> None:
    """In a fresh interpreter: a contract of imports sees neither packages nor their faces."""
    script = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(name, *({"onnx", "onnxruntime", "grpc", "google", "torch"} & {*sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *PURE], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split("\n")[:-1] == list(PURE), done.stdout + done.stderr


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {dotted(path): path for path in MODULES}
    graph = {
        name: {
            found
            for each in imports_of(path)
            if (found := each if each in names else each.rpartition(".")[0]) in names
        }
        for name, path in names.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_module_imports_what_another_keeps_to_itself() -> None:
    strays = [
        f"{name_of(path)}: {alias.name} of {node.module}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if re.match("_(?!_)", alias.name)
    ]
    assert strays == []


def test_nothing_that_runs_code_from_data_is_used() -> None:
    found = [
        f"{name_of(path)} imports {name}"
        for path in MODULES
        for name in imports_of(path)
        if name.split(".")[0] in UNSAFE_MODULES
    ]
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
                    found.append(f"{name_of(path)}:{node.lineno} calls {node.func.id}")
                for keyword in node.keywords:
                    if keyword.arg in ("allow_pickle", "shell") and not (
                        isinstance(keyword.value, ast.Constant)
                        and keyword.value.value is False
                    ):
                        found.append(f"{name_of(path)}:{node.lineno} sets {keyword.arg}")
    assert found == []


def test_every_text_file_is_read_and_written_as_utf_8() -> None:
    """Otherwise a network's names would depend on the locale of whoever ran the command."""
    bare = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and _takes_text(node)
        if not re.search(r"utf-8|ascii", ast.unparse(node))
    ]
    assert bare == []


def _takes_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text, as far as one sees from the call alone."""
    is_method = isinstance(call.func, ast.Attribute)
    name = ast.unparse(call.func).rpartition(".")[2]
    modes = [
        each.value
        for each in [*call.args, *(keyword.value for keyword in call.keywords)]
        if isinstance(each, ast.Constant) and re.fullmatch("[rwax]b?t?", str(each.value))
    ]
    return (is_method and name in ("read_text", "write_text")) or (
        name in ("open", "fdopen") and any("b" not in str(mode) for mode in modes)
    )


def test_users_never_see_a_bare_exception() -> None:
    """What is raised on purpose has a class that says what to do about it."""
    bare = {"Exception", "BaseException", "RuntimeError"}
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in bare
    ]
    assert found == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [name_of(p) for p in MODULES if not ast.get_docstring(ast.parse(p.read_text()))]
    assert silent == []


def test_docstrings_open_with_a_noun_or_with_what_is_to_be_done() -> None:
    openings = "What Whether Who When Where How Why Which That Until".split()
    strays = [
        f"{name_of(path)}: {ast.get_docstring(node)}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (ast.get_docstring(node) or "-").split()[0].rstrip(",:") in openings
    ]
    assert strays == []


def retired() -> list[str]:
    """Return the first column of the glossary's last table, word by word."""
    page = (ROOT / "docs/reference/glossary.md").read_text(encoding="utf-8")
    _, _, table = page.partition("## Retired")
    return re.findall(
        r"`([^`]+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    )


def test_retired_words_stay_retired() -> None:
    words = retired()
    assert {"Offer", "Renewal", "--network"} <= set(words)
    texts = [
        *MODULES,
        *(each for each in DOCUMENTS if each.name not in ("glossary.md", "CHANGELOG.md")),
    ]
    word = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, words))})(?![\w-])")
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if word.search(line) and "_FORMER = " not in line
    ]
    assert found == []


def test_no_unfinished_business() -> None:
    marker = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError")
    found = [
        f"{name_of(path)}:{number}"
        for path in MODULES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marker.search(line)
    ]
    assert found == []


def anchors_of(text: str) -> set[str]:
    """Names that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_within_the_repository_resolve(document: Path) -> None:
    prose = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in anchors_of(file.read_text())):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize(
    "document", [each for each in DOCUMENTS if each.name not in LONG_LINES], ids=name_of
)
def test_documents_wrap_at_100_columns(document: Path) -> None:
    """Prose alone: code and tables are as wide as they are, and so is a long link."""
    text = document.read_text(encoding="utf-8")
    text = re.sub(
        r"^```.*?^```$|<!--.*?-->",
        lambda code: "\n" * code[0].count("\n"),
        text,
        flags=re.M | re.S,
    )
    wide = [
        f"{name_of(document)}:{number}: {line}"
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > 100 and " " in line.strip() and not line.startswith(("    ", "|", "#"))
    ]
    assert wide == []


def test_files_that_the_architecture_names_exist_in_the_package_it_names() -> None:
    package = ROOT
    missing = []
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        if root := re.match(r"### `(\w+)/`", line):
            package = next(p for p in PACKAGES if p.parent.name == root[1])
        elif line.startswith("- `"):
            names = re.findall(r"`([\w/]+(?:\.py|/))`", line.partition(": ")[0])
            missing += [
                f"{package.name}/{name}" for name in names if not (package / name).exists()
            ]
    assert missing == []


def test_images_are_built_from_every_import_root() -> None:
    copied = re.findall(
        r"^COPY (\w+) \1$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE
    )
    assert sorted(copied) == sorted(package.parent.name for package in PACKAGES)


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs/decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def share_of(counts: Iterable[int], share: float) -> int:
    """Return what `share` of `counts` are at most."""
    ordered = sorted(counts)
    return ordered[int(share * (len(ordered) - 1))]


def test_files_and_functions_are_short() -> None:
    files = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert share_of(files.values(), 0.9) <= 300
    assert [name for name, lines in files.items() if lines > 450] == []
    assert share_of(functions, 0.5) <= 8
    assert share_of(functions, 0.9) <= 25
    assert max(functions) <= 80


def test_all_places_tell_one_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    places = {
        "CITATION.cff": rf"^version: {re.escape(version)}$",
        "app/midstream/__init__.py": rf'^__version__ = "{re.escape(version)}"$',
        "CHANGELOG.md": rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$",
    }
    lacking = [
        place
        for place, line in places.items()
        if not re.search(line, (ROOT / place).read_text("utf-8"), re.MULTILINE)
    ]
    assert lacking == []


#: Words of a sentence in a document; a reader in a second language loses the thread sooner.
MOST_WORDS = 40


def sentences_of(text: str) -> Iterator[str]:
    """Yield the sentences of a document's prose: no code, no tables, no headings."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", text, flags=re.DOTALL)
    prose = "\n".join(
        line for line in text.splitlines() if not re.match(r"\s*\||    |#|:::", line)
    )
    prose = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", prose))
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", prose):
        yield from re.split(r"(?<=[.:;!?])\s+", " ".join(paragraph.split()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_sentences_are_short(document: Path) -> None:
    if document.parent.name == "decisions" or document.name == "CHANGELOG.md":
        pytest.skip("records stay as they were written")
    found = sentences_of(document.read_text("utf-8"))
    assert [each for each in found if len(each.split()) > MOST_WORDS] == []
