"""Published choices of a cut, against the planner's."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path

import pytest

from midstream_lab.papers import devices, networks
from midstream_lab.papers.cases import (
    dads_classifiers,
    dads_yolo,
    neurosurgeon,
    quoted_cut,
)
from midstream_lab.papers.statements import Statement, changeovers, statements
from midstream_lab.papers.study import SPLIT, Case, Outcome, Reported, decide
from midstream_partitioner.costs.link import Link
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.search.cost_table import costs_of
from midstream_partitioner.search.min_cut import CutSearch
from midstream_wire.errors import UsageError

PAGE = Path(__file__).parents[3].joinpath("docs/results/papers.md").read_text("utf-8")


def outcome_over(link: str) -> Outcome:
    return next(decide(case) for case in dads_yolo() if case.link == link)


def parameters(graph: Graph) -> int:
    return sum(node.weight_nbytes for node in graph.nodes) // 4


def nbytes(graph: Graph, name: str) -> int:
    return graph.tensors[name].nbytes


# The networks


def test_drawn_networks_have_the_published_number_of_parameters() -> None:
    assert parameters(networks.caffe_alexnet()) == 60_965_224
    assert parameters(networks.vgg16()) == 138_357_544


def test_tensors_of_tiny_yolov2_have_the_sizes_that_dads_gives() -> None:
    graph = networks.tiny_yolov2()
    assert nbytes(graph, "input") / 2**20 == pytest.approx(0.95, abs=0.005)
    assert nbytes(graph, "max5") / 2**20 == pytest.approx(0.08, abs=0.005)


def test_alexnet_and_vgg_hand_on_least_behind_their_last_pooling() -> None:
    assert nbytes(networks.caffe_alexnet(), "pool5") == 256 * 6 * 6 * 4
    assert nbytes(networks.vgg16(), "pool5") == 512 * 7 * 7 * 4


def test_the_towers_of_alexnet_meet_in_the_last_layer() -> None:
    graph = networks.towers_alexnet()
    assert graph.nodes[-1].inputs == ("left/fc7", "right/fc7")
    assert all(len(node.inputs) == 1 for node in graph.nodes[:-1])


# DADS: tiny YOLOv2 by its own times


def test_layer_times_add_up_to_what_dads_says_of_edge_and_cloud() -> None:
    """Figure 12: cloud-only over 3G is 0.24 times as fast as edge-only."""
    found = outcome_over("3G")
    assert found.edge_only_s == pytest.approx(1.82, abs=0.01)
    assert found.edge_only_s / found.cloud_only_s == pytest.approx(0.24, abs=0.01)


def test_prices_end_where_the_curves_of_dads_figure_3_end() -> None:
    """Curves of input, max3, max4 and max5 at the chart's right edge, in seconds."""
    case = replace(dads_yolo()[0], uplink_bps=39.85e6)
    priced = {
        cut: decide(replace(case, reported=Reported(cut))).reported_s
        for cut in (CLOUD_ONLY, "max3", "max4", "max5")
    }
    assert priced == pytest.approx(
        {CLOUD_ONLY: 0.366, "max3": 0.492, "max4": 0.551, "max5": 0.625}, rel=0.005
    )


def test_at_4_mbit_tiny_yolov2_is_cut_behind_max5_as_dads_reports() -> None:
    found = outcome_over("4 Mbit/s")
    assert (found.choice, found.verdict) == ("max5", "agrees")
    assert 1 - 1 / found.over_cloud == pytest.approx(0.62, abs=0.03)


def test_at_18_mbit_the_times_of_dads_make_another_cut_faster_than_the_reported_one() -> None:
    found = outcome_over("18 Mbit/s")
    assert found.verdict == "differs"
    assert found.choice == "max3"
    assert found.over_cloud == pytest.approx(1.06, abs=0.01)


def test_the_cut_moves_towards_the_input_as_the_uplink_gets_faster() -> None:
    graph = networks.tiny_yolov2()
    order = [EDGE_ONLY, *(node.name for node in reversed(graph.nodes)), CLOUD_ONLY]
    places = [order.index(decide(case).choice) for case in dads_yolo()]
    assert places == sorted(places)


# DADS: VGG-16 and AlexNet by its devices' rates


def test_no_cut_of_vgg16_in_raw_floats_beats_cloud_only_over_3g_on_a_raspberry_pi() -> None:
    found = next(decide(case) for case in dads_classifiers() if case.reported.cut == SPLIT)
    assert (found.choice, found.verdict) == (CLOUD_ONLY, "differs")


def test_both_towers_of_alexnet_are_cut_at_the_same_place() -> None:
    found = next(
        decide(case)
        for case in dads_classifiers()
        if case.graph.name.startswith("AlexNet") and case.link == "4G"
    )
    assert found.choice == "pool1"


# Neurosurgeon


@pytest.mark.parametrize("picture", ["uint8", "float32"])
@pytest.mark.parametrize("conv_share", [0.09, 0.125, 0.25, 0.5, 1.0])
def test_alexnet_on_the_gpu_over_wifi_is_cut_behind_pool5(
    conv_share: float, picture: str
) -> None:
    found = decide(quoted_cut(conv_share, picture))
    assert found.verdict == "agrees"
    assert found.over_cloud > 1 < found.over_edge


def test_fc6_takes_the_share_of_alexnet_that_is_quoted_of_neurosurgeon() -> None:
    """45 % of all time on the mobile device."""
    graph = networks.caffe_alexnet()
    seconds = devices.tk1_gpu().seconds(graph)
    [fc6_s] = (s for node, s in zip(graph.nodes, seconds, strict=True) if node.name == "fc6")
    assert fc6_s / sum(seconds) == pytest.approx(0.45, abs=0.05)


def test_a_slow_gpu_sends_the_picture() -> None:
    assert decide(quoted_cut(0.06)).choice == CLOUD_ONLY


@pytest.mark.parametrize(("picture", "share"), [("uint8", 0.13), ("float32", 0.49)])
def test_vgg_over_3g_gains_far_less_than_is_quoted_of_neurosurgeon(
    picture: str, share: float
) -> None:
    [found] = (o for o in map(decide, neurosurgeon(picture)) if o.case.reported.over_cloud)
    assert (found.case.graph.name, found.case.link) == ("VGG-16", "3G")
    assert found.gain == pytest.approx(share, abs=0.005)


def test_every_choice_is_at_least_as_fast_as_both_trivial_cuts() -> None:
    cases = (*dads_yolo(), *dads_classifiers(), *neurosurgeon(), *neurosurgeon("float32"))
    for found in map(decide, cases):
        assert found.latency_s <= min(found.edge_only_s, found.cloud_only_s)


def test_listing_and_minimum_cuts_choose_alike() -> None:
    for case in (*dads_classifiers(), *neurosurgeon()):
        graph = case.graph
        costs = costs_of(graph, case.edge.seconds(graph), case.cloud.seconds(graph))
        by_flow = CutSearch(graph, costs, listed_sets=0).best(
            Link(case.uplink_bps, inf, rtt_s=0.0, fixed_s=0.0)
        )
        assert by_flow.latency_s == pytest.approx(decide(case).latency_s)


# The page


@pytest.mark.parametrize("each", statements(), ids=lambda each: str(each.says))
def test_the_page_states_what_the_planner_finds(each: Statement) -> None:
    assert each.words in " ".join(PAGE.split())


def test_the_pages_table_has_the_scripts_speedups() -> None:
    cases = (*dads_yolo(), *dads_classifiers(), *neurosurgeon())
    for found in map(decide, cases):
        for ours, theirs in (
            (found.over_edge, found.case.reported.over_edge),
            (found.over_cloud, found.case.reported.over_cloud),
        ):
            assert f"{ours:.2f}" + (f" ({theirs:g}" if theirs else "") in PAGE
        if found.gain is not None and found.told.endswith("paper's"):
            assert f", {found.gain * 100:.0f} % |" in PAGE


def test_cuts_change_over_where_their_prices_meet() -> None:
    case = dads_yolo()[0]
    found = changeovers(case)
    assert [cut for cut, _ in found] == [EDGE_ONLY, "max5", "max4", "max3", CLOUD_ONLY]
    for (before, at_bps), (after, _) in pairwise(found):
        for factor, cut in ((0.999, before), (1.001, after)):
            assert decide(replace(case, uplink_bps=at_bps * factor)).choice == cut


# Values


def verdict(choice: str, latency_s: float, reported_s: float | None) -> str:
    case: Case = replace(quoted_cut(0.25), reported=Reported("pool5"))
    return Outcome(case, choice, latency_s, 2.0, 2.0, reported_s).verdict


def test_a_cut_that_costs_as_little_is_level_and_one_that_costs_more_differs() -> None:
    assert verdict("pool5", 1.0, 1.0) == "agrees"
    assert verdict("pool2", 1.0, 1.02) == "level"
    assert verdict("pool2", 1.0, 1.05) == "differs"
    assert verdict("pool2", 1.0, None) == "not known"


def told(reported: Reported) -> str:
    """Of a cut behind pool5 that is twice as fast as either trivial one."""
    case = replace(quoted_cut(), reported=reported)
    return Outcome(case, "pool5", 1.0, 2.0, 2.0, 1.0 if reported.cut else None).told


def test_a_published_gain_is_held_against_ours_whether_or_not_the_cut_is_known() -> None:
    assert told(Reported()) == "nothing to compare"
    assert told(Reported("pool5")) == "agrees"
    assert told(Reported("pool5", 2.0, 2.1)) == "cut agrees, gain agrees"
    assert told(Reported("pool5", 2.0, 4.0)) == "cut agrees, gain 50% of the paper's"
    assert told(Reported("pool5", 0.4, 4.0)) == "cut agrees, gain 500% of the paper's"
    assert told(Reported(over_cloud=20)) == "cut not known, gain 10% of the paper's"


def test_published_times_are_for_their_own_network_only() -> None:
    with pytest.raises(UsageError, match="none for 'norm1' of AlexNet"):
        devices.PI_3B_YOLO.seconds(networks.caffe_alexnet())


def test_a_reported_cut_must_be_a_layer_of_the_network() -> None:
    with pytest.raises(UsageError, match=r"a reported cut must be one of .* \(not 'pool9'\)"):
        decide(replace(quoted_cut(0.25), reported=Reported("pool9")))
