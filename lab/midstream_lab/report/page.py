"""Pages: an HTML file each, style, pictures, script and data inside, that need no network.

The frame that reports of experiments, fleets and sweeps have in common; what stands in it is
theirs. Charts are SVG, colours are the style sheet's, so that one file serves screen, dark
screen and print. Why no library draws: docs/decisions/0013-reports-draw-their-own-pictures.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, final

from midstream_lab.results.run_files import whole

#: The names that a report and its figures have in whatever folder.
REPORT, SUMMARY = "report.html", "summary.json"


@final
@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: its anchor, its name in the contents, its markup."""

    id: str
    title: str
    content: str

    def __str__(self) -> str:
        title = f"<h2>{escape(self.title)}</h2>"
        return f'<section id="{self.id}">{title}\n{self.content}\n</section>'


@final
@dataclass(frozen=True, slots=True)
class Page:
    """A page, in plain text but for the sections' markup.

    `verdict` is what came out, in sentences; `tiles` are figures and what they mean; `remarks`
    and `warnings` stand above everything else. `data` is for the page's script and for whoever
    wants the figures themselves.
    """

    title: str
    kicker: str
    verdict: Sequence[str]
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    footer: str
    data: Mapping[str, Any]
    remarks: Sequence[str] = field(default=())
    warnings: Sequence[str] = field(default=())

    def render(self) -> str:
        """The file's content; the same page gives the same bytes."""
        page = files("midstream_lab.report").joinpath("html")
        return Template(page.joinpath("report.html").read_text("utf-8")).substitute(
            title=escape(self.title),
            kicker=escape(self.kicker),
            verdict="".join(f"<p>{escape(each)}</p>" for each in self.verdict),
            warnings=self._notices(),
            tiles="".join(
                f'<div class="tile"><b>{escape(figure)}</b><span>{escape(words)}</span></div>'
                for figure, words in self.tiles
            ),
            contents="".join(
                f'<a href="#{each.id}">{escape(each.title)}</a>' for each in self.sections
            ),
            sections="\n".join(map(str, self.sections)),
            footer=escape(self.footer),
            style=page.joinpath("report.css").read_text("utf-8"),
            script=page.joinpath("report.js").read_text("utf-8"),
            data=_embedded(self.data),
        )

    def write(self, path: Path) -> Path:
        """The page as `path`, or as `report.html` in that folder; whole or not at all."""
        path = path if is_page(path) else path / REPORT
        with whole(path, "w") as file:
            file.write(self.render())
        return path

    def _notices(self) -> str:
        return "".join(
            f'<p class="{kind}">{escape(each)}</p>'
            for kind, said in (("remark", self.remarks), ("warning", self.warnings))
            for each in said
        )


def is_page(path: Path) -> bool:
    """Return True if `path` names a page alone, and no folder for one with its figures."""
    return path.suffix.lower() == ".html"


def note(words: str) -> str:
    """Return what a picture shows, small above it."""
    return f'<p class="note">{escape(words)}</p>'


def card(*content: str) -> str:
    """Markup on a surface of its own."""
    return f'<div class="card">{"".join(content)}</div>'


def write_summary(document: Mapping[str, Any], folder: Path) -> None:
    """`summary.json` into `folder`, whole or not at all."""
    with whole(folder / SUMMARY, "w") as file:
        json.dump(document, file, indent=2, allow_nan=False)


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def footer(versions: str, elsewhere: str) -> str:
    """Return who made a page, that it stands alone, and what lies beside it."""
    return (
        f"{versions} · this file needs nothing else: data, pictures and script are inside. "
        f"{elsewhere}"
    ).rstrip()
