"""A profile that stands in for measuring what a server holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from midstream.deployment import with_profile
from midstream.loaders import open_models
from midstream.serving import make_repository, measure_chain
from midstream_cloud import service
from midstream_cloud.server import serving
from midstream_edge.link.describe import describe
from midstream_edge.link.endpoint import Endpoint
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.execution.chain import Chain
from midstream_wire.errors import UsageError


def test_a_profile_given_is_what_edges_plan_with() -> None:
    models = open_models(["digits"])
    profile = measure_chain(Chain(models["digits"]), runs=3)
    held = make_repository(models, runs=50, profile=profile).models["digits"]
    assert held.profile == profile.serving(1)


def test_models_that_do_not_fit_one_message_are_told_and_their_profiles_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = open_models(["digits"])
    profile = measure_chain(Chain(models["digits"]), runs=3)
    repository = make_repository(models, profile=profile)
    monkeypatch.setattr(service, "MAX_MESSAGE_NBYTES", 1000)
    with serving(repository) as address:
        endpoint = Endpoint.of(str(address))
        (told,) = describe(endpoint)
        assert (told.name, told.profile) == ("digits", "")
        found = with_profile(endpoint, told)
    assert Profile.from_json(found.profile) == repository.models["digits"].profile
    assert replace(found, profile="") == told


def test_a_profile_is_of_one_model() -> None:
    models = open_models(["digits"])
    profile = measure_chain(Chain(models["digits"]), runs=3)
    two = {"one": models["digits"], "two": models["digits"]}
    with pytest.raises(UsageError, match="of one model, and 2 are served"):
        make_repository(two, profile=profile)
