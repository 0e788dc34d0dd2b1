"""A detector in the manner of YOLO: pictures [N, 3, 320, 320] in, three scales of boxes out.

Layer for layer the sizes of a published nano detector (YOLOv5n, release 6): a backbone of
cross-stage-partial blocks (Wang et al. 2019), pyramid pooling, then features joined top down
(Lin et al. 2017, FPN) and bottom up again (Liu et al. 2018, PANet). 1,867,405 parameters with
batch normalisations folded. Its branches side by side are what makes cutting it interesting.
"""

from __future__ import annotations

from midstream_lab.networks.builder import Builder
from midstream_lab.networks.convnets import BRANCH_GAIN

#: Three anchors, each with a box (4), whether there is an object (1), and 80 classes.
PREDICTIONS = 3 * (4 + 1 + 80)


def yolo(b: Builder) -> None:
    """Logits "small" [N, 255, 40, 40], "medium" [.., 20, 20] and "large" [.., 10, 10]."""
    p3, p4, p5 = _backbone(b, b.input("input", (3, 320, 320)))
    with b.scope("top_down"):
        lateral5 = _conv(b, p5, 128, name="lateral5")
        y = b.concat((b.upsample(lateral5, name="upsample5"), p4), name="concat4")
        lateral4 = _conv(b, _csp(b, y, 128, name="csp4", residual=False), 64, name="lateral4")
        y = b.concat((b.upsample(lateral4, name="upsample4"), p3), name="concat3")
        small = _csp(b, y, 64, name="csp3", residual=False)
    with b.scope("bottom_up"):
        y = _conv(b, small, 64, kernel=3, stride=2, name="down3")
        y = b.concat((y, lateral4), name="concat4")
        medium = _csp(b, y, 128, name="csp4", residual=False)
        y = _conv(b, medium, 128, kernel=3, stride=2, name="down4")
        y = b.concat((y, lateral5), name="concat5")
        large = _csp(b, y, 256, name="csp5", residual=False)
    for name, features in (("small", small), ("medium", medium), ("large", large)):
        b.output(b.conv(features, PREDICTIONS, kernel=1, name=f"detect/{name}"), name)


def _backbone(b: Builder, x: str) -> tuple[str, str, str]:
    """Features at 1/8, 1/16 and 1/32 of the picture's size."""
    with b.scope("backbone"):
        x = b.conv(x, 16, kernel=6, stride=2, padding=2, name="stem")
        x = b.silu(x, name="stem/silu")
        stages = []
        for index, (channels, blocks) in enumerate(
            ((32, 1), (64, 2), (128, 3), (256, 1)), start=2
        ):
            x = _conv(b, x, channels, kernel=3, stride=2, name=f"down{index}")
            x = _csp(b, x, channels, name=f"csp{index}", blocks=blocks)
            stages.append(x)
        return stages[1], stages[2], _pyramid_pool(b, x, 256, name="sppf")


def _conv(
    b: Builder, x: str, channels: int, *, name: str, kernel: int = 1, stride: int = 1
) -> str:
    """Convolution and SiLU."""
    return b.silu(
        b.conv(x, channels, kernel=kernel, stride=stride, name=name), name=f"{name}/silu"
    )


def _csp(
    b: Builder, x: str, channels: int, *, name: str, blocks: int = 1, residual: bool = True
) -> str:
    """Half the channels go through `blocks` bottlenecks, half go past them."""
    with b.scope(name):
        y = _conv(b, x, channels // 2, name="through")
        for index in range(blocks):
            with b.scope(f"block{index}"):
                y = _bottleneck(b, y, residual=residual)
        past = _conv(b, x, channels // 2, name="past")
        return _conv(b, b.concat((y, past)), channels, name="join")


def _bottleneck(b: Builder, x: str, *, residual: bool) -> str:
    channels = b.shape(x)[0]
    y = _conv(b, x, channels, name="conv1")
    gain = BRANCH_GAIN if residual else 1.0
    y = b.silu(b.conv(y, channels, kernel=3, name="conv2", gain=gain), name="conv2/silu")
    return b.add(x, y) if residual else y


def _pyramid_pool(b: Builder, x: str, channels: int, *, name: str) -> str:
    """Maxima over 5, 9 and 13 pixels, as three pools of 5 in a row."""
    with b.scope(name):
        levels = [_conv(b, x, channels // 2, name="reduce")]
        for index in range(3):
            levels.append(b.max_pool(levels[-1], 5, stride=1, padding=2, name=f"pool{index}"))
        return _conv(b, b.concat(levels), channels, name="join")
