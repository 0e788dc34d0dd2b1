"""A profile that stands in for measuring what a server holds."""

from __future__ import annotations

import pytest

from midstream.serving import make_repository, measure_chain
from midstream.sources import open_models
from midstream_partitioner.chain import Chain
from midstream_wire.errors import UsageError


def test_a_profile_given_is_what_edges_plan_with() -> None:
    models = open_models(["digits"])
    profile = measure_chain(Chain(models["digits"]), runs=3)
    held = make_repository(models, runs=50, profile=profile).models["digits"]
    assert held.profile == profile.serving(1)


def test_a_profile_is_of_one_model() -> None:
    models = open_models(["digits"])
    profile = measure_chain(Chain(models["digits"]), runs=3)
    two = {"one": models["digits"], "two": models["digits"]}
    with pytest.raises(UsageError, match="of one model, and 2 are served"):
        make_repository(two, profile=profile)
