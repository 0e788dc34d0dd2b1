"""Reference networks for pictures [N, 3, 224, 224] in, logits [N, 1000] out: convolutional.

Batch normalisations are folded into the convolutions before them, as every deployment does.
"""

from __future__ import annotations

from midstream_lab.networks.builder import Builder

CLASSES = 1000
#: The last layer of a residual branch, damped so that the sum keeps its scale through the
#: depth (Zhang et al. 2019, Fixup: branches of untrained networks must start small).
BRANCH_GAIN = 0.5


def alexnet(b: Builder) -> None:
    """Krizhevsky 2014, "One weird trick", the single-tower AlexNet: 61,100,840 parameters."""
    x = b.input("input", (3, 224, 224))
    x = b.relu(b.conv(x, 64, kernel=11, stride=4, padding=2, name="conv1"), name="relu1")
    x = b.max_pool(x, 3, stride=2, name="pool1")
    x = b.relu(b.conv(x, 192, kernel=5, name="conv2"), name="relu2")
    x = b.max_pool(x, 3, stride=2, name="pool2")
    for index, channels in ((3, 384), (4, 256), (5, 256)):
        x = b.relu(b.conv(x, channels, kernel=3, name=f"conv{index}"), name=f"relu{index}")
    x = b.max_pool(x, 3, stride=2, name="pool5")
    _classifier(b, x)


def vgg16(b: Builder) -> None:
    """Simonyan and Zisserman 2014, configuration D: 138,357,544 parameters."""
    x = b.input("input", (3, 224, 224))
    for stage, (depth, channels) in enumerate(
        ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1
    ):
        for index in range(1, depth + 1):
            x = b.conv(x, channels, kernel=3, name=f"conv{stage}_{index}")
            x = b.relu(x, name=f"relu{stage}_{index}")
        x = b.max_pool(x, 2, stride=2, name=f"pool{stage}")
    _classifier(b, x)


def _classifier(b: Builder, x: str) -> None:
    """The three fully connected layers that AlexNet and VGG end with."""
    x = b.flatten(x)
    x = b.relu(b.gemm(x, 4096, name="fc6"), name="relu6")
    x = b.relu(b.gemm(x, 4096, name="fc7"), name="relu7")
    b.output(b.gemm(x, CLASSES, name="fc8"), "logits")


def resnet18(b: Builder) -> None:
    """He et al. 2015: 11,689,512 parameters, less 4,800 by folding."""
    x = _resnet_stem(b)
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            with b.scope(f"layer{stage}.{block}"):
                x = _basic_block(b, x, channels, stride=stride)
    _resnet_end(b, x)


def resnet50(b: Builder) -> None:
    """He et al. 2015, stride in the 3x3: 25,557,032 parameters, less 26,560 by folding."""
    x = _resnet_stem(b)
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            with b.scope(f"layer{stage}.{block}"):
                x = _bottleneck(b, x, width, stride=stride)
    _resnet_end(b, x)


def _resnet_stem(b: Builder) -> str:
    x = b.input("input", (3, 224, 224))
    x = b.relu(b.conv(x, 64, kernel=7, stride=2, name="conv1"))
    return b.max_pool(x, 3, stride=2, padding=1, name="maxpool")


def _basic_block(b: Builder, x: str, channels: int, *, stride: int) -> str:
    y = b.relu(b.conv(x, channels, kernel=3, stride=stride, name="conv1"), name="relu1")
    y = b.conv(y, channels, kernel=3, name="conv2", gain=BRANCH_GAIN)
    return b.relu(b.add(y, _shortcut(b, x, channels, stride=stride)))


def _bottleneck(b: Builder, x: str, width: int, *, stride: int) -> str:
    y = b.relu(b.conv(x, width, kernel=1, name="conv1"), name="relu1")
    y = b.relu(b.conv(y, width, kernel=3, stride=stride, name="conv2"), name="relu2")
    y = b.conv(y, 4 * width, kernel=1, name="conv3", gain=BRANCH_GAIN)
    return b.relu(b.add(y, _shortcut(b, x, 4 * width, stride=stride)))


def _shortcut(b: Builder, x: str, channels: int, *, stride: int) -> str:
    if stride == 1 and b.shape(x)[0] == channels:
        return x
    return b.conv(x, channels, kernel=1, stride=stride, name="downsample")


def _resnet_end(b: Builder, x: str) -> None:
    x = b.flatten(b.global_pool(x))
    b.output(b.gemm(x, CLASSES, name="fc"), "logits")


def mobilenetv2(b: Builder) -> None:
    """Sandler et al. 2018, table 2: 3,504,872 parameters, less 17,056 by folding."""
    x = b.input("input", (3, 224, 224))
    with b.scope("features.0"):
        x = b.relu6(b.conv(x, 32, kernel=3, stride=2, name="conv"))
    index = 1
    for expansion, channels, repeats, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            with b.scope(f"features.{index}"):
                x = _inverted_residual(b, x, channels, expansion=expansion, stride=stride)
            index += 1
    with b.scope(f"features.{index}"):
        x = b.relu6(b.conv(x, 1280, kernel=1, name="conv"))
    x = b.flatten(b.global_pool(x))
    b.output(b.gemm(x, CLASSES, name="classifier"), "logits")


def _inverted_residual(
    b: Builder, x: str, channels: int, *, expansion: int, stride: int
) -> str:
    width = b.shape(x)[0] * expansion
    residual = stride == 1 and b.shape(x)[0] == channels
    y = x
    if expansion > 1:
        y = b.relu6(b.conv(y, width, kernel=1, name="expand"), name="expand/relu6")
    y = b.conv(y, width, kernel=3, stride=stride, groups=width, name="depthwise")
    y = b.relu6(y, name="depthwise/relu6")
    y = b.conv(y, channels, kernel=1, name="project", gain=BRANCH_GAIN if residual else 1.0)
    return b.add(x, y) if residual else y
