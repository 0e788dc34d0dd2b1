"""Reports of the papers on devices, models and links, as cases for the planner."""

from __future__ import annotations

from midstream_lab.papers import devices
from midstream_lab.papers.networks import caffe_alexnet, tiny_yolov2, towers_alexnet, vgg16
from midstream_lab.papers.study import NOTHING, SPLIT, Case, Reported
from midstream_partitioner.graph.cuts import CLOUD_ONLY

DADS = "DADS"
NEUROSURGEON = "Neurosurgeon"

#: Uplinks in bit/s: table I of DADS. The last three are handed down as Neurosurgeon's, too.
LINKS = {"Cat 1": 0.13e6, "3G": 1.1e6, "4G": 5.85e6, "Wi-Fi": 18.88e6}

#: The shares of their peak that convolutions on the TK1's GPU are tried at.
CONV_SHARES = (0.03, 0.06, 0.125, 0.25, 0.5)

_SECOND_HAND = "a reader's report"

_YOLO = {
    "18 Mbit/s": Reported(CLOUD_ONLY, source="section I"),
    "4 Mbit/s": Reported("max5", over_cloud=2.63, source="section I"),
    "3G": Reported(SPLIT, 1.94, 8.08, "figure 12"),
}
_CLASSIFIERS = {
    ("VGG-16", "3G"): Reported(SPLIT, 4.53, 1.40, "figure 12"),
    ("AlexNet (two towers)", "3G"): Reported(SPLIT, 6.45, 1.41, "figure 12"),
}
_NEUROSURGEON = {
    ("AlexNet (Caffe)", "TK1 GPU", "Wi-Fi"): Reported("pool5", source=_SECOND_HAND),
    ("VGG-16", "TK1 GPU", "3G"): Reported(over_cloud=20, source=_SECOND_HAND),
}


def dads_yolo() -> tuple[Case, ...]:
    """Tiny YOLOv2 by the paper's own layer times: its table's links, and two of its text."""
    uplinks = {**LINKS, "4 Mbit/s": 4e6, "18 Mbit/s": 18e6}
    return tuple(
        Case(
            paper=DADS,
            graph=tiny_yolov2(),
            edge=devices.PI_3B_YOLO,
            cloud=devices.ALI_CLOUD_YOLO,
            link=link,
            uplink_bps=uplink_bps,
            reported=_YOLO.get(link, NOTHING),
        )
        for link, uplink_bps in sorted(uplinks.items(), key=lambda item: item[1])
    )


def dads_classifiers() -> tuple[Case, ...]:
    """VGG-16 and AlexNet, on devices as fast as they are with tiny YOLOv2."""
    return tuple(
        Case(
            paper=DADS,
            graph=graph,
            edge=devices.PI_3B,
            cloud=devices.ALI_CLOUD,
            link=link,
            uplink_bps=uplink_bps,
            reported=_CLASSIFIERS.get((graph.name, link), NOTHING),
        )
        for graph in (vgg16(), towers_alexnet())
        for link, uplink_bps in LINKS.items()
    )


def neurosurgeon(picture: str = "uint8") -> tuple[Case, ...]:
    """AlexNet and VGG-16 on both processors of the TK1, over 3G, 4G and Wi-Fi.

    `picture` is the dtype in which the input crosses: uint8, or float32 as Caffe reads it.
    """
    return tuple(
        Case(
            paper=NEUROSURGEON,
            graph=graph,
            edge=edge,
            cloud=devices.k40(),
            link=link,
            uplink_bps=LINKS[link],
            reported=_NEUROSURGEON.get((graph.name, edge.name, link), NOTHING),
        )
        for graph in (caffe_alexnet(picture), vgg16(picture))
        for edge in (devices.tk1_gpu(), devices.tk1_cpu())
        for link in ("3G", "4G", "Wi-Fi")
    )


def quoted_cut(
    conv_share: float = devices.CONV_SHARE,
    picture: str = "uint8",
    *,
    memory_share: float = devices.MEMORY_SHARE,
) -> Case:
    """The one cut of Neurosurgeon that is quoted, were its GPU slower or faster."""
    return Case(
        paper=NEUROSURGEON,
        graph=caffe_alexnet(picture),
        edge=devices.tk1_gpu(conv_share, memory_share),
        cloud=devices.k40(),
        link="Wi-Fi",
        uplink_bps=LINKS["Wi-Fi"],
        reported=Reported("pool5", source=_SECOND_HAND),
    )
