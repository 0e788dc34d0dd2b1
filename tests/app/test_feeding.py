"""What feeds a network: flags for every field, which replace it alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midstream import loaders as sources
from midstream.cli.command_table import COMMANDS, load
from midstream.cli.commands.pair import partition_folder
from midstream.deployment import agree
from midstream.feeding import AS_IT_IS, Feeding, flag_of
from midstream_cloud.models import Model
from midstream_lab.networks import NETWORKS
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.inputs.feed_terms import difference, terms_of
from midstream_partitioner.partition.folder import load_partition
from midstream_partitioner.partition.partition import Partition
from midstream_wire.descriptions import ModelDescription
from midstream_wire.errors import CloudRefused, UsageError
from midstream_wire.tensors import TensorSpec

DIGITS = NETWORKS["digits"].feed
PICTURE = TensorSpec("image", "uint8", ("n", 8, 8, 1))


def commands() -> Iterator[tuple[str, Any]]:
    for name in COMMANDS:
        found = load(name)
        inside = getattr(found, "commands", None)
        if inside is None:
            yield name, found
        else:
            yield from ((f"{name} {word}", command) for word, command in inside.items())


MODEL_COMMANDS = {
    name: {opt for each in command.params for opt in each.opts}
    for name, command in commands()
    if any(each.name in ("model", "models") and each.nargs != 0 for each in command.params)
    and name != "models"
}


def test_there_are_as_many_commands_that_take_a_network_as_the_help_lists() -> None:
    assert sorted(MODEL_COMMANDS) == sorted(
        [
            *("calibrate", "cloud serve", "codecs", "edge run", "pair", "partition"),
            *("plan", "profile", "simulate", "verify"),
        ]
    )


@pytest.mark.parametrize("name", sorted(MODEL_COMMANDS))
def test_every_field_has_a_flag_on_every_command_that_takes_a_network(name: str) -> None:
    wanted = {flag_of(field.name) for field in dataclasses.fields(Feed)} | {"--feed"}
    assert wanted - MODEL_COMMANDS[name] == set()


def said(**fields: object) -> Feeding:
    return Feeding.of(None, fields)


class TestOneField:
    def test_leaves_the_others_of_a_reference_network(self) -> None:
        network = sources.open_network("digits", feed=said(scale=0.5))
        assert network.feed == replace(DIGITS, scale=0.5, sizes=network.feed.sizes)
        pictures = NETWORKS["resnet18"].feed
        assert said(resize="crop").over(pictures) == replace(pictures, resize="crop")

    def test_leaves_the_others_of_the_file_beside_a_model(
        self, models: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "net.onnx"
        path.write_bytes((models / "tiny.onnx").read_bytes())
        path.with_suffix(".toml").write_text("scale = 0.5\nmean = 2", encoding="utf-8")
        network = sources.open_network(path, feed=said(mean=[3.0]))
        assert (network.feed.scale, network.feed.mean) == (0.5, (3.0,))

    def test_goes_on_top_of_the_file_that_stands_in_for_the_networks_own(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "feed.toml"
        file.write_text('kind = "image"\ncolor = "GRAY"\nscale = 2', encoding="utf-8")
        feed = Feeding.of(file, {"scale": "1/4", "mean": None}).over(DIGITS)
        assert feed == Feed(kind="image", color="GRAY", scale=0.25)

    def test_that_is_about_pictures_is_refused_where_arrays_are_fed(self) -> None:
        with pytest.raises(UsageError, match="--color must be of a model that is fed pict"):
            said(color="BGR").over(None)
        with pytest.raises(UsageError, match="color must be"):
            said(color="puce")

    def test_that_no_node_heeds_may_be_said_anew_of_a_partition(self, models: Path) -> None:
        folder = models / "early.midstream"
        part = sources.open_partition(folder, feed=said(labels=["zero"]))
        kept = load_partition(folder)
        assert part.feed == replace(kept.feed, labels=("zero",)) != kept.feed
        assert part.digest == kept.digest
        with pytest.raises(UsageError, match="--scale out"):
            sources.open_partition(folder, feed=said(scale=2.0))

    def test_reaches_the_processes_of_a_pair(self, models: Path) -> None:
        own = str(models / "early.midstream")
        with partition_folder(own, AS_IT_IS, size=None, like=None) as folder:
            assert folder == Path(own)
        with partition_folder(own, said(labels=["a"]), size=None, like=None) as folder:
            assert load_partition(folder).feed.labels == ("a",)

    def test_is_of_one_network_where_several_are_served(self, models: Path) -> None:
        two = [str(models / "tiny.onnx"), str(models / "other.onnx")]
        with pytest.raises(UsageError, match="must be of one, and 2 are served"):
            sources.open_models(two, feed=said(scale=2.0))
        (part,) = sources.open_models(two[:1], feed=said(scale=2.0)).values()
        assert part.feed.scale == 2.0


@pytest.fixture(scope="module")
def served() -> ModelDescription:
    part = sources.open_partition("digits")
    return Model("digits", part, Chain(part)).describe()


def joined(feeding: Feeding, *remote: ModelDescription, model: str | None = None) -> Partition:
    return agree("digits", remote, feed=feeding, sizes=(), model=model)[0]


class TestTwoSides:
    def test_of_one_feed_agree(self, served: ModelDescription) -> None:
        assert joined(said(labels=["a"]), served).digest == served.partition_digest

    def test_are_told_which_fields_differ(self, served: ModelDescription) -> None:
        with pytest.raises(CloudRefused) as told:
            joined(said(scale=0.5), served, model="digits")
        assert f"the feed differs: scale is 0.5 here and {DIGITS.scale} on the" in str(
            told.value
        )

    def test_are_told_so_of_a_model_under_another_name(self, served: ModelDescription) -> None:
        with pytest.raises(CloudRefused, match="the feed differs: scale"):
            joined(said(scale=0.5), replace(served, name="kitchen"))

    def test_of_one_feed_and_two_models_are_told_of_the_models(
        self, served: ModelDescription
    ) -> None:
        with pytest.raises(CloudRefused, match="must hold the same model"):
            joined(AS_IT_IS, replace(served, graph_digest="0" * 64))

    def test_with_a_server_that_tells_no_feed_are_told_of_the_models(
        self, served: ModelDescription
    ) -> None:
        with pytest.raises(CloudRefused, match="must hold the same model"):
            joined(said(scale=0.5), replace(served, feed=()))


class TestTerms:
    def test_tell_neutral_values_alike(self) -> None:
        zeros = Feed(kind="image", color="GRAY", mean=(0.0,), std=(1.0, 1.0, 1.0))
        plain = Feed(kind="image", color="GRAY", resize="pad", labels=("a",))
        assert terms_of(zeros, [PICTURE]) == terms_of(plain, [PICTURE])
        arrays = [terms_of(Feed(layout=each), []) for each in ("NCHW", "NHWC")]
        assert arrays[0] == arrays[1] == (("kind", '"array"'),)

    def test_tell_sizes_as_the_graph_has_them(self) -> None:
        terms = dict(terms_of(Feed(kind="image", color="GRAY"), [PICTURE]))
        assert (terms["height"], terms["width"]) == ("8", "8")

    def test_shorten_what_is_long_and_still_differ(self) -> None:
        one, other = (terms_of(Feed(mean=(*[0.25] * 500, last)), []) for last in (1.0, 2.0))
        assert max(len(value) for _, value in one) <= 128
        assert difference(one, one) == ""
        assert difference(one, other).startswith("mean is [0.25, 0.25")

    def test_an_input_that_one_side_leaves_unsaid_is_no_difference(self) -> None:
        named = terms_of(Feed(input="x", scale=2.0), [])
        assert difference(named, terms_of(Feed(scale=2.0), [])) == ""
        assert difference(named, terms_of(Feed(input="y", scale=2.0), [])) != ""

    def test_many_differences_are_told_in_few_words(self) -> None:
        ours = tuple((f"f{n}", "1") for n in range(9))
        assert difference(ours, ()).endswith("f3 is 1 here, and 5 more")
