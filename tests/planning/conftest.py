"""Small random networks, and brute force over them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from midstream_partitioner.graph import Graph, Node, Tensor

RandomGraph = Callable[..., Graph]
ClosedSets = Callable[[Graph], Iterator[frozenset[int]]]


@pytest.fixture(scope="session")
def random_graph() -> RandomGraph:
    """Networks of up to `most_nodes` nodes with shared tensors, several inputs and outputs."""

    def build(seed: int, *, most_nodes: int = 9, least_nodes: int = 1) -> Graph:
        choose = random.Random(seed)
        tensors = {}
        names: list[str] = []

        def tensor(name: str) -> str:
            nominal = (1, choose.randint(1, 4000))
            dtype = choose.choice(["float32", "float32", "uint8"])
            tensors[name] = Tensor(name, dtype, nominal, nominal)
            names.append(name)
            return name

        inputs = tuple(tensor(f"x{i}") for i in range(choose.choice([1, 1, 2])))
        nodes = []
        for index in range(choose.randint(least_nodes, most_nodes)):
            recent = names[-4:] if choose.random() < 0.8 else names
            read = choose.sample(recent, min(len(recent), choose.choice([1, 1, 2, 3])))
            made = [tensor(f"t{index}.{i}") for i in range(choose.choice([1, 1, 1, 2]))]
            nodes.append(
                Node(
                    index=index,
                    name=f"n{index}",
                    op_type="Op",
                    inputs=tuple(read),
                    outputs=tuple(made),
                    weight_nbytes=choose.choice([0, 10, 200, 1000]),
                    flops=choose.randint(0, 10**6),
                    layer=choose.random() < 0.5,
                )
            )
        used = {name for node in nodes for name in node.inputs}
        ends = [name for node in nodes for name in node.outputs if name not in used]
        extra = [name for name in names if name in used and choose.random() < 0.1]
        return Graph(
            name=f"random-{seed}",
            nodes=tuple(nodes),
            tensors=tensors,
            inputs=inputs,
            outputs=(*ends, *extra),
            digest=f"{seed:064x}",
        )

    return build


@pytest.fixture(scope="session")
def closed_sets() -> ClosedSets:
    """Every closed set of a network, by trying all subsets."""

    def every(graph: Graph) -> Iterator[frozenset[int]]:
        for chosen in product([False, True], repeat=len(graph.nodes)):
            head = frozenset(index for index, inside in enumerate(chosen) if inside)
            if graph.is_closed(head):
                yield head

    return every
