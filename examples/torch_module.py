"""A torch module: taken in, cut, planned and served like any ONNX file.

pip install '.[torch]'
python examples/torch_module.py
"""

from __future__ import annotations

import numpy as np
import torch

import midstream


class Net(torch.nn.Module):
    """Three layers; yours may be any module that `torch.export` takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.second = torch.nn.Conv2d(16, 8, 3, stride=2)
        self.last = torch.nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(x.mean((2, 3)))


def main() -> None:
    torch.manual_seed(0)
    module = Net().eval()
    sample = torch.rand(1, 3, 32, 32)
    part = midstream.partition(midstream.from_torch(module, sample))
    (name,) = (spec.name for spec in part.inputs)
    with (
        midstream.serve(part) as server,
        midstream.connect(part, server, (0, "raw")) as session,
    ):
        answer = session.infer({name: sample.numpy()})
    (got,) = answer.outputs.values()
    whole = module(sample).detach().numpy()
    print(f"{answer.where}: within {np.abs(got - whole).max():.1g} of the whole module")


if __name__ == "__main__":
    main()
