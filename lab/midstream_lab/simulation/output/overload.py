"""A test for overload: more requests come than are answered, which an average hides."""

from __future__ import annotations

import numpy as np

from midstream_lab.simulation.output.request_table import Table

#: With fewer requests a queue has not had the time to show.
_LEAST_REQUESTS = 20
#: The last requests waited longer than those a quarter into the run, so many times: a queue
#: that grows evenly from nothing reaches 0.95 / 0.3, one that has settled stays near 1.
_GROWN = 2.0


def backlog_s(table: Table) -> float | None:
    """Return how long the last tenth of requests waited before their edge began with them,
    where such waits grew to the end of the run and beyond the time that a request takes; else
    None.
    """
    if len(table) < _LEAST_REQUESTS:
        return None
    waits_s = (table.latency_s - table.stay_s)[np.argsort(table.due_s, kind="stable")]
    tenths_s = [float(part.mean()) for part in np.array_split(waits_s, 10)]
    early_s, last_s = float(np.mean(tenths_s[1:5])), tenths_s[-1]
    stay_s = float(table.stay_s.mean())
    return last_s if last_s > max(_GROWN * early_s, stay_s) else None
