"""The view of a running edge: what it believes, what it chose, where the time went."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from midstream.cli.output import console
from midstream_edge.workload.load_generator import Record
from midstream_partitioner.costs.timings import FIELDS
from midstream_partitioner.units import format_duration, format_nbytes, format_rate

#: The figures are over the latest so many requests.
WINDOW = 50
_COLOURS = ("green", "cyan", "yellow", "magenta", "blue", "red", "white")
_STATES = {"connected": "green", "suspect": "yellow", "down": "red"}
_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 60


@final
class View:
    """A page that is drawn anew from the records it has been given."""

    def __init__(
        self, title: str, labels: Callable[[], Mapping[tuple[int, str], str]]
    ) -> None:
        self._title = title
        self._labels = labels
        self._records: deque[Record] = deque(maxlen=WINDOW)
        self._where: Counter[str] = Counter()
        self._hedges = self._switches = 0

    def take(self, record: Record) -> None:
        self._records.append(record)
        answer = record.answer
        self._where["failed" if answer is None else answer.where] += 1
        self._hedges += answer is not None and answer.hedged
        self._switches += record.switched

    def __rich__(self) -> RenderableType:
        if not self._records:
            return Text(f"{self._title}: waiting for the first answer", style="dim")
        rows = Table.grid(padding=(0, 2))
        for name, value in self._rows():
            rows.add_row(Text(name, style="dim"), value)
        return Group(Text(self._title, style="bold"), rows)

    def _rows(self) -> Iterator[tuple[str, RenderableType]]:
        latest = self._records[-1]
        yield "link", self._link(latest)
        answer = latest.answer
        if answer is not None:
            label = self._labels().get((answer.k, answer.codec), answer.codec)
            yield "plan", Text(f"{label}, {format_nbytes(answer.payload_nbytes)} a request")
        latencies_s = [record.latency_s for record in self._records]
        now, middle, worst = map(
            format_duration, (latencies_s[-1], median(latencies_s), max(latencies_s))
        )
        yield (
            "latency",
            Text(f"{now} now, {middle} median, {worst} worst of {len(latencies_s)}"),
        )
        yield "", Text(_sparkline(latencies_s))
        yield "time", self._stages()
        counts = ", ".join(f"{count} {where}" for where, count in sorted(self._where.items()))
        yield (
            "answers",
            Text(f"{counts}; {self._hedges} hedged, {self._switches} switches of plan"),
        )

    def _link(self, record: Record) -> Text:
        text = Text(record.link, style=_STATES[record.link])
        belief = record.belief
        if belief is not None:
            low, high = belief.quantile_bps(0.1), belief.quantile_bps(0.9)
            text.append(
                f"  {format_rate(belief.uplink_bps)} up ({format_rate(low)} to "
                f"{format_rate(high)}), RTT {format_duration(belief.rtt_s)}",
                style="default",
            )
        return text

    def _stages(self) -> Text:
        """A bar of the seven stages, with their names."""
        answers = [record.answer for record in self._records if record.answer is not None]
        sums = [sum(getattr(answer.timings, field) for answer in answers) for field in FIELDS]
        whole = sum(sums) or 1.0
        bar, names = Text(), Text()
        for field, part, colour in zip(FIELDS, sums, _COLOURS, strict=True):
            width = round(_WIDTH * part / whole)
            bar.append("█" * width, style=colour)
            if width:
                words = f"{field.removesuffix('_s')} {console.ms(part / len(answers))}  "
                names.append(words, style=colour)
        return Text("\n").join([bar, names.append("ms")])


@contextmanager
def shown(view: View, *, quiet: bool) -> Iterator[None]:
    """The view on the terminal, redrawn four times a second; the last state stays.

    Where standard error is no terminal, nothing: a log has no use for it.
    """
    if quiet or not console.err.is_terminal:
        yield
        return
    with Live(view, console=console.err, refresh_per_second=4):
        yield


def _sparkline(values: list[float]) -> str:
    top = max(values) or 1.0
    last = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(last * value / top)] for value in values)
