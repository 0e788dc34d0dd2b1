"""Maximum flow and minimum cut on small directed networks.

Dinic's algorithm (E. A. Dinitz, "Algorithm for solution of a problem of maximum flow in
networks with power estimation", 1970): breadth-first levels, then a blocking flow along them.
Arrays instead of node objects, no recursion; O(V^2 E) at worst, and far less on what is left
of a neural network once `blocks` has reduced it to short paths.
"""

from __future__ import annotations

from math import inf
from typing import final


@final
class FlowNetwork:
    """Arcs with capacities between nodes 0..n-1; `math.inf` is a capacity like any other.

    Arc 2i and its reverse 2i+1 lie side by side, so that `arc ^ 1` is the way back.
    """

    def __init__(self, node_count: int) -> None:
        self._out: list[list[int]] = [[] for _ in range(node_count)]
        self._head: list[int] = []
        self._capacity: list[float] = []

    def add(self, tail: int, head: int, capacity: float) -> None:
        """Add an arc; one without capacity is left out."""
        if capacity <= 0:
            return
        self._out[tail].append(len(self._head))
        self._out[head].append(len(self._head) + 1)
        self._head += (head, tail)
        self._capacity += (capacity, 0.0)

    def min_cut(self, source: int, sink: int) -> tuple[float, list[bool]]:
        """Capacity of the minimum cut, and for every node whether it is on the source's side.

        Of several minimum cuts the one with the smallest source side. (inf, []) when every cut
        is infinite. Capacities are used up: call it once.
        """
        total = 0.0
        while True:
            levels = self._levels(source)
            if levels[sink] < 0:
                return total, [level >= 0 for level in levels]
            pushed = self._blocking_flow(source, sink, levels)
            if pushed == inf:
                return inf, []
            total += pushed

    def _levels(self, source: int) -> list[int]:
        """Distance from `source` over arcs with capacity left; -1 if out of reach."""
        levels = [-1] * len(self._out)
        levels[source] = 0
        queue = [source]
        for node in queue:
            for arc in self._out[node]:
                head = self._head[arc]
                if levels[head] < 0 and self._capacity[arc] > 0:
                    levels[head] = levels[node] + 1
                    queue.append(head)
        return levels

    def _blocking_flow(self, source: int, sink: int, levels: list[int]) -> float:
        """Push along level paths until none is left; inf if one of them has no bottleneck."""
        capacity, out, heads = self._capacity, self._out, self._head
        following = [0] * len(out)  # per node, the first arc that may still lead to the sink
        path: list[int] = []
        node, total = source, 0.0
        while True:
            if node == sink:
                amount = min(capacity[arc] for arc in path)
                if amount == inf:
                    return inf
                total += amount
                node = self._push(path, amount)
                continue
            while following[node] < len(out[node]):
                arc = out[node][following[node]]
                if capacity[arc] > 0 and levels[heads[arc]] == levels[node] + 1:
                    path.append(arc)
                    node = heads[arc]
                    break
                following[node] += 1
            else:
                if node == source:
                    return total
                node = heads[path.pop() ^ 1]
                following[node] += 1

    def _push(self, path: list[int], amount: float) -> int:
        """Send `amount` along `path`, drop it from its first full arc on, return its end."""
        first_full = -1
        for position, arc in enumerate(path):
            self._capacity[arc] -= amount
            self._capacity[arc ^ 1] += amount
            if first_full < 0 and self._capacity[arc] <= 0:
                first_full = position
        end = self._head[path[first_full] ^ 1]
        del path[first_full:]
        return end
