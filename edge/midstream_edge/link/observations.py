"""An edge's observations of its link: its state, and times of transfers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

LinkState = Literal["connected", "suspect", "down"]


@final
@dataclass(frozen=True, slots=True)
class Transfer:
    """The measured transfer of one exchange.

    `nbytes` went up (what was acknowledged, where the transfer was not `complete`) and
    `reply_nbytes` came down in `took_s`: from handing over the first byte to the last byte of
    the reply, less the time that the server says it took itself. An incomplete transfer has
    come to nothing yet: all that is known is that the rest takes longer. `ahead_nbytes` were
    on their way already when this one began, and left first.

    `up_s` is the uplink's part: by how much longer the last byte was on its way up than an
    empty exchange is. It knows nothing of what delays the reply; None without compared clocks.
    """

    nbytes: int
    reply_nbytes: int
    took_s: float
    complete: bool = True
    ahead_nbytes: int = 0
    up_s: float | None = None
