"""What mkdocs is told besides mkdocs.yml: pages that are made, links that leave docs/.

A link from a page to a file elsewhere in the repository, `../../SECURITY.md`, works where the
repository is read. In the site such a file has a copy under project/: Markdown as a page, the
rest as it is. So all links hold, and none leads to another host.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from command_page import command_page
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
COMMANDS, DECISIONS, PROJECT = "reference/commands.md", "decisions/index.md", "project"
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
CODE = re.compile(r"```.*?```|^    .*?$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
#: What a browser loads along with a page.
FOREIGN = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?(?:https?:)?//[^\s\">]+"
    r"|<link[^>]*\shref=\"?(?:https?:)?//[^\s\">]+"
)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and copies of all files that pages link to."""
    files.append(File.generated(config, COMMANDS, content=command_page()))
    files.append(File.generated(config, DECISIONS, content=_decisions()))
    waiting = [each for each in files if each.is_documentation_page()]
    while waiting:
        page = waiting.pop()
        for target in _targets(page.content_string):
            path = _repository_path(page.src_uri, target)
            uri = _site_uri(path)
            if (ROOT / path).is_file() and files.get_file_from_path(uri) is None:
                copied = _copy(config, uri, path)
                files.append(copied)
                waiting += [copied] if copied.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page's text with links that go where the site has the files."""
    here = posixpath.dirname(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        if re.match(r"[a-z]+:", link[2]):
            return link[0]
        uri = _site_uri(_repository_path(page.file.src_uri, link[2]))
        return f"{link[1]}{posixpath.relpath(uri, here or '.')}{link[3]}"

    return LINK.sub(moved, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Return a page as it is, if a browser loads nothing for it from another host."""
    if found := FOREIGN.search(output):
        raise PluginError(f"{page.file.src_uri} must load nothing from elsewhere: {found[0]}")
    return output


def _targets(text: str) -> set[str]:
    found = {link[1] for link in LINK.findall(CODE.sub("", text))}
    return {each for each in found if not re.match(r"[a-z]+:", each)}


def _repository_path(page: str, target: str) -> str:
    """Return the path in the repository of what `target` on a page of the site means."""
    if page.startswith(f"{PROJECT}/"):
        home = posixpath.dirname(page.removeprefix(f"{PROJECT}/"))
    else:
        home = posixpath.join("docs", posixpath.dirname(page))
    return posixpath.normpath(posixpath.join(home, target))


def _site_uri(path: str) -> str:
    """Return the place in the site of a file, or of a folder's page, of the repository."""
    if path == "docs/decisions":
        return DECISIONS
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path / "README.md").is_file():
        path = f"{path}/README.md"
    # mkdocs takes README.md for a folder's index, beside which no index.md may stand.
    return f"{PROJECT}/{path}"


def _copy(config: Any, uri: str, path: str) -> File:
    return File.generated(config, uri, content=(ROOT / path).read_bytes())


def _decisions() -> str:
    """Return a page that lists the decisions, by number."""
    lines = ["# Decisions", "", "Large choices, one a page: what was weighed, and why."]
    for path in sorted((ROOT / "docs/decisions").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines += ["", f"- [{title}]({path.name})"]
    return "\n".join(lines) + "\n"
