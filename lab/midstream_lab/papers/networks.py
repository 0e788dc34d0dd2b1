"""The papers' networks, drawn. They differ from the reference networks of the same name."""

from __future__ import annotations

from midstream_lab.papers.drawing import Drawing
from midstream_partitioner.graph.graph import Graph


def caffe_alexnet(dtype: str = "uint8") -> Graph:
    """`bvlc_alexnet` of Caffe's model zoo, which Neurosurgeon runs: 60,965,224 parameters.

    The network of Krizhevsky 2012: 227x227 in, 96 channels first, conv2, conv4 and conv5 in
    two groups, and a normalisation behind conv1 and conv2. The reference network is the later
    one of Krizhevsky 2014: 224x224, 64 channels first, no groups, no normalisation.
    """
    b = Drawing("AlexNet (Caffe)", (3, 227, 227), dtype)
    x = b.conv("input", 96, kernel=11, stride=4, padding=0, name="conv1")
    x = b.pool(b.normalise(x, name="norm1"), 3, stride=2, name="pool1")
    x = b.normalise(b.conv(x, 256, kernel=5, groups=2, name="conv2"), name="norm2")
    x = b.pool(x, 3, stride=2, name="pool2")
    x = b.conv(x, 384, kernel=3, name="conv3")
    x = b.conv(x, 384, kernel=3, groups=2, name="conv4")
    x = b.conv(x, 256, kernel=3, groups=2, name="conv5")
    return _classifier(b, b.pool(x, 3, stride=2, name="pool5"))


def towers_alexnet(dtype: str = "float32") -> Graph:
    """AlexNet as figure 11 of DADS draws it: two towers that meet only in the last layer.

    Channels are halves of Krizhevsky 2012's; what joins the towers there at conv3 and the
    first fully connected layers is not in the figure, so it is not here.
    """
    b = Drawing("AlexNet (two towers)", (3, 224, 224), dtype)
    ends = [_tower(b, side) for side in ("left", "right")]
    return b.graph(b.dense(*ends, features=1000, name="fc8"))


def vgg16(dtype: str = "float32") -> Graph:
    """Simonyan and Zisserman 2014, configuration D: 138,357,544 parameters."""
    b = Drawing("VGG-16", (3, 224, 224), dtype)
    x = "input"
    for stage, (depth, channels) in enumerate(
        ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1
    ):
        for index in range(1, depth + 1):
            x = b.conv(x, channels, kernel=3, name=f"conv{stage}_{index}")
        x = b.pool(x, 2, stride=2, name=f"pool{stage}")
    return _classifier(b, x)


def resnet18(dtype: str = "float32") -> Graph:
    """He et al. 2015, projections as convolutions of 1x1, without normalisations."""
    b = Drawing("ResNet-18", (3, 224, 224), dtype)
    x = b.conv("input", 64, kernel=7, stride=2, name="conv1")
    x = b.pool(x, 2, stride=2, name="pool1")
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        for block in (1, 2):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"layer{stage}_{block}"
            y = b.conv(x, channels, kernel=3, stride=stride, name=f"{name}/conv1")
            y = b.conv(y, channels, kernel=3, name=f"{name}/conv2")
            if stride > 1:
                x = b.conv(x, channels, kernel=1, stride=stride, name=f"{name}/projection")
            x = b.add(y, x, name=name)
    return b.graph(b.dense(b.pool(x, 7, stride=7, name="pool5"), features=1000, name="fc"))


def tiny_yolov2(dtype: str = "float32") -> Graph:
    """Redmon and Farhadi 2016, the tiny variant for 20 classes, at 288x288.

    DADS names neither side nor classes; its figure 1 gives 0.95 MB for the input and 0.08 MB
    behind max5, which raw float32 has at 288x288 (0.949 and 0.079 MiB), and it draws nine
    convolutions and six poolings.
    """
    b = Drawing("tiny YOLOv2", (3, 288, 288), dtype)
    x = "input"
    for index, channels in enumerate((16, 32, 64, 128, 256, 512), start=1):
        x = b.conv(x, channels, kernel=3, name=f"conv{index}")
        x = b.pool(x, 2, stride=2 if index < 6 else 1, name=f"max{index}")
    x = b.conv(b.conv(x, 1024, kernel=3, name="conv7"), 1024, kernel=3, name="conv8")
    return b.graph(b.conv(x, 125, kernel=1, name="conv9"))


def _classifier(b: Drawing, x: str) -> Graph:
    x = b.dense(b.dense(x, features=4096, name="fc6"), features=4096, name="fc7")
    return b.graph(b.dense(x, features=1000, name="fc8"))


def _tower(b: Drawing, side: str) -> str:
    def named(layer: str) -> str:
        return f"{side}/{layer}"

    x = b.conv("input", 48, kernel=11, stride=4, padding=2, name=named("conv1"))
    x = b.pool(x, 3, stride=2, name=named("pool1"))
    x = b.pool(b.conv(x, 128, kernel=5, name=named("conv2")), 3, stride=2, name=named("pool2"))
    for index, channels in ((3, 192), (4, 192), (5, 128)):
        x = b.conv(x, channels, kernel=3, name=named(f"conv{index}"))
    x = b.pool(x, 3, stride=2, name=named("pool5"))
    x = b.dense(x, features=2048, name=named("fc6"))
    return b.dense(x, features=2048, name=named("fc7"))
