"""A vision transformer: pictures [N, 3, 224, 224] in, logits [N, 1000] out."""

from __future__ import annotations

import math

from midstream_lab.networks.builder import Builder
from midstream_lab.networks.convnets import BRANCH_GAIN, CLASSES

DEPTH = 12
WIDTH = 192
HEADS = 3
PATCH = 16
TOKENS = (224 // PATCH) ** 2  # without the class token
#: Dosovitskiy's LayerNorms use 1e-6, not PyTorch's 1e-5.
EPSILON = 1e-6


def vit_tiny(b: Builder) -> None:
    """ViT-Ti/16: Dosovitskiy et al. 2020, in the size of Touvron et al. 2021: 5,717,416."""
    x = b.input("input", (3, 224, 224))
    x = b.conv(x, WIDTH, kernel=PATCH, stride=PATCH, padding=0, name="patch_embed")
    x = b.reshape(x, (WIDTH, TOKENS), name="patch_embed/flatten")
    x = b.transpose(x, (0, 2, 1), name="patch_embed/transpose")
    token = b.embedding((1, 1, WIDTH), name="class_token", std=0.2)
    position = b.embedding((1, TOKENS + 1, WIDTH), name="position", std=0.2)
    x = b.add(b.prepend(token, x, name="prepend"), position, name="position/add")
    for index in range(DEPTH):
        with b.scope(f"blocks.{index}"):
            x = b.add(
                x, _attention(b, b.layer_norm(x, name="norm1", epsilon=EPSILON)), name="add1"
            )
            x = b.add(x, _mlp(b, b.layer_norm(x, name="norm2", epsilon=EPSILON)), name="add2")
    x = b.first(b.layer_norm(x, name="norm", epsilon=EPSILON), name="class")
    b.output(b.gemm(x, CLASSES, name="head"), "logits")


def _attention(b: Builder, x: str) -> str:
    """Multi-head self-attention: H heads of width D / H, on [N, L, D]."""
    length, width = TOKENS + 1, WIDTH // HEADS
    with b.scope("attn"):
        qkv = b.linear(x, 3 * WIDTH, name="qkv")
        q, k, v = b.split(qkv, ("q", "k", "v"), name="split")
        heads = {"q": q, "k": k, "v": v}
        for part, order in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3))):
            y = b.reshape(heads[part], (length, HEADS, width), name=f"{part}/heads")
            heads[part] = b.transpose(y, order, name=f"{part}/transpose")
        scores = b.matmul(heads["q"], heads["k"], name="scores")
        weights = b.softmax(b.scale(scores, 1 / math.sqrt(width)))
        y = b.matmul(weights, heads["v"], name="mix")
        y = b.reshape(
            b.transpose(y, (0, 2, 1, 3), name="mix/transpose"), (length, WIDTH), name="join"
        )
        return b.linear(y, WIDTH, name="proj", gain=BRANCH_GAIN)


def _mlp(b: Builder, x: str) -> str:
    with b.scope("mlp"):
        y = b.gelu(b.linear(x, 4 * WIDTH, name="fc1"))
        return b.linear(y, WIDTH, name="fc2", gain=BRANCH_GAIN)
