"""An estimate of link and devices, learnt from an edge's own requests.

A log-normal Kalman filter: the logarithms of both rates are random walks, and every exchange
measures their joint effect on its time. A change gate opens the filter when a sample surprises
it, so that a tenfold drop is believed at once and noise is not (an adaptive Kalman filter with
an innovation test; Mehra, "Approaches to adaptive filtering", IEEE Trans. Automatic Control
1972). Pure: no clock; moments and times come in as evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import exp, isfinite, log, sqrt
from statistics import NormalDist
from typing import final

import numpy as np
from numpy.typing import NDArray

from midstream_edge.link.observations import LinkState, Transfer
from midstream_edge.policies.interface import Evidence
from midstream_edge.policies.menu import Conditions
from midstream_partitioner.costs.link import Link
from midstream_partitioner.planning.placements import Placement

Floats = NDArray[np.float64]

#: How far the logarithm of a rate walks: standard deviation after a second. The downlink, of
#: which small replies say little, is taken to be steadier.
WALK, DOWN_WALK = 0.35, 0.1
#: Replies that took less than this share of the bytes' time say nothing of the downlink: the
#: two rates could not be told apart, and would drift, one up and the other down.
TELLING_SHARE = 0.5
#: Standard deviation of one sample's logarithm, what one transfer differs from the next: at
#: the start, and the range in which it is learnt. Cellular links reach the upper end.
NOISE, LEAST_NOISE, MOST_NOISE = 0.2, 0.1, 0.8
#: Weight of a sample in the noise.
NOISE_GAIN = 0.1
#: A sample this many variances off is a change of the link, and not noise.
GATE = 6.0
#: A silent filter forgets no further than this: e^2 either way at one standard deviation.
MOST_VARIANCE = 4.0
#: Weight of a complete transfer in what is usual, and how far a link that has come back may
#: be from it.
USUAL_GAIN, REGAINED_VARIANCE = 1 / 16, 1.0
#: Rates that a belief may hold; faster than 100 Gbit/s is as good as no limit at all.
LEAST_BPS, MOST_BPS = 100.0, 1e11
#: An exchange of no more bytes, which take less than this share of the delay, measures the
#: delay. With more of them, delay and rate could not be told apart, and would drift together.
SMALL_NBYTES, SMALL_SHARE = 1460, 0.2
#: Weight of a sample that is shorter or longer than the delay: it follows the lower ones.
DELAY_FALL, DELAY_RISE = 1 / 2, 1 / 8
#: Weight of a sample in the jitter, how many jitters one counts for at most, the least jitter.
JITTER_GAIN, MOST_JITTERS, LEAST_JITTER_S = 1 / 8, 4.0, 0.0002
#: Weight of a measured time in the devices' scales, and the scales' range.
SCALE_GAIN, LEAST_SCALE, MOST_SCALE = 1 / 4, 0.02, 50.0
#: Stages shorter than this are mostly the clock's and the scheduler's doing.
LEAST_STAGE_S = 0.0005
#: Weight of a request's queue time; without requests the queue is forgotten in such a time.
QUEUE_GAIN, QUEUE_MEMORY_S = 1 / 2, 5.0
#: Least bytes to make a bound of: one segment was surely sent.
SEGMENT_NBYTES = 1460


@final
@dataclass(frozen=True, slots=True)
class LinkBelief:
    """The logarithms of both rates (bit/s) as mean and variance, and all else a request meets.

    `noise` is the variance of what one transfer's logarithm differs from the next one's, and
    `usual` what the uplink's has been lately. `delay_s` is the time of an empty exchange and
    `jitter_s` its mean deviation. `head_scale` and `tail_scale` are measured over profiled
    times. All of it holds at `at_s`.
    """

    at_s: float
    mean: float
    variance: float
    down_mean: float
    down_variance: float
    delay_s: float
    jitter_s: float
    usual: float
    noise: float = NOISE**2
    queue_s: float = 0.0
    head_scale: float = 1.0
    tail_scale: float = 1.0
    link: LinkState = "connected"
    fixed_s: float = 0.0

    @classmethod
    def of(cls, link: Link, *, at_s: float = float("-inf")) -> LinkBelief:
        """Return what a first measurement says; it gets old from the first evidence on."""
        delay_s = link.rtt_s + link.fixed_s
        return cls(
            at_s=at_s,
            mean=_log_rate(link.uplink_bps),
            variance=NOISE**2,
            down_mean=_log_rate(link.downlink_bps),
            down_variance=NOISE**2,
            delay_s=delay_s,
            jitter_s=max(LEAST_JITTER_S, delay_s / 20),
            usual=_log_rate(link.uplink_bps),
            fixed_s=link.fixed_s,
        )

    @property
    def uplink_bps(self) -> float:
        """The median."""
        return exp(self.mean)

    @property
    def downlink_bps(self) -> float:
        """The median."""
        return exp(self.down_mean)

    @property
    def rtt_s(self) -> float:
        """The delay less what the software adds to it."""
        return max(0.0, self.delay_s - self.fixed_s)

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithm of the rate that one transfer will meet."""
        return sqrt(self.variance + self.noise)

    def quantiles_bps(self, count: int) -> Floats:
        """[count] uplink rates of equal probability for one transfer, ascending."""
        rates: Floats = np.exp(self.mean + self.spread * normal_quantiles(count))
        return rates

    def quantile_bps(self, share: float) -> float:
        """The uplink rate that one transfer falls short of with probability `share`."""
        return exp(self.mean + self.spread * NormalDist().inv_cdf(share))

    def conditions(self, backlog_nbytes: int = 0) -> Conditions:
        """Return what the next request meets, at the medians."""
        return Conditions(
            self.uplink_bps,
            self.downlink_bps,
            self.delay_s,
            self.queue_s,
            self.head_scale,
            self.tail_scale,
            backlog_nbytes,
        )

    def at(self, now_s: float) -> LinkBelief:
        """The belief at `now_s`: less certain by the time gone by, if any has."""
        gone_s = now_s - self.at_s
        if not gone_s > 0:
            return self
        if not isfinite(gone_s):  # the first moment that this belief hears of
            return replace(self, at_s=now_s) if isfinite(now_s) else self
        return replace(
            self,
            at_s=now_s,
            variance=_widened(self.variance, WALK**2 * gone_s),
            down_variance=_widened(self.down_variance, DOWN_WALK**2 * gone_s),
            queue_s=self.queue_s * exp(-gone_s / QUEUE_MEMORY_S),
        )

    def observe(self, evidence: Evidence, placement: Placement | None = None) -> LinkBelief:
        """The belief after `evidence`, of a request that took `placement` where it was one.

        Evidence that cannot be (negative or endless times) changes nothing.
        """
        belief = self.at(evidence.at_s)
        if evidence.link is not None:
            belief = belief._connected(evidence.link)
        if evidence.transfer is not None and _is_sound(evidence.transfer):
            belief = belief._transferred(evidence.transfer)
        return belief._served(evidence, placement)

    def _connected(self, link: LinkState) -> LinkBelief:
        """Return what was held back while the link failed says nothing of the one that comes
        back.

        It may be any; what was usual before is the best guess.
        """
        if link != "connected" or self.link == "connected":
            return replace(self, link=link)
        return replace(
            self,
            link=link,
            mean=max(self.mean, self.usual),
            variance=max(self.variance, REGAINED_VARIANCE),
        )

    def _transferred(self, transfer: Transfer) -> LinkBelief:
        if not transfer.complete:
            return self._withheld(transfer)
        up_s = 8 * (transfer.nbytes + transfer.ahead_nbytes) / self.uplink_bps
        down_s = 8 * transfer.reply_nbytes / self.downlink_bps
        serial_s = up_s + down_s
        belief = self
        small = max(transfer.nbytes + transfer.ahead_nbytes, transfer.reply_nbytes)
        if small <= SMALL_NBYTES and serial_s <= SMALL_SHARE * self.delay_s:
            belief = self._delayed(transfer.took_s - serial_s)
        elif transfer.took_s < self.delay_s:
            belief = replace(self, delay_s=transfer.took_s)
        if serial_s <= 0:
            return belief
        left_s = transfer.took_s - belief.delay_s
        down_tells = up_s <= 0 or down_s >= TELLING_SHARE * serial_s
        if transfer.up_s is not None:
            if up_s > 0:
                belief = belief._corrected(*belief._surprise(up_s, transfer.up_s), 1.0)
            if down_tells:
                left_s -= transfer.up_s
                belief = belief._corrected(*belief._surprise(down_s, left_s), 0.0)
        elif down_tells:
            surprise, noise = belief._surprise(serial_s, left_s)
            belief = belief._corrected(surprise, noise, up_s / serial_s)
        else:
            belief = belief._corrected(*belief._surprise(up_s, left_s - down_s), 1.0)
        usual = belief.usual + USUAL_GAIN * (belief.mean - belief.usual)
        return replace(belief, usual=usual)

    def _surprise(self, expected_s: float, took_s: float) -> tuple[float, float]:
        """Logarithm of how much faster than expected the bytes were, and its variance.

        Jitter blurs what small transfers say: all times within it of the one seen are
        possible, and the one nearest to the expectation is taken.
        """
        least_s, most_s = took_s - self.jitter_s, max(took_s, 0.0) + self.jitter_s
        nearest_s = min(max(expected_s, least_s), most_s)
        return log(expected_s / nearest_s), self.noise + (self.jitter_s / nearest_s) ** 2

    def _corrected(self, surprise: float, noise: float, share: float) -> LinkBelief:
        """The Kalman step for a sample whose bytes took e^-surprise times what was expected.

        `share` of that time was the uplink's: ln(up_s + down_s) is linear in both logarithms
        near the expectation, with -share and share - 1 as its derivatives.
        """
        up, down = self.variance * share**2, self.down_variance * (1 - share) ** 2
        variance, down_variance = self.variance, self.down_variance
        innovation = min(surprise**2, GATE * (up + down + noise))
        learnt = self.noise + NOISE_GAIN * self.noise / noise * (
            innovation - (up + down + noise)
        )
        if surprise**2 > GATE * (up + down + noise):
            variance += surprise**2 * share
            down_variance += surprise**2 * (1 - share)
            up, down = variance * share**2, down_variance * (1 - share) ** 2
        total = up + down + noise
        mean = self.mean + variance * share / total * surprise
        down_mean = self.down_mean + down_variance * (1 - share) / total * surprise
        return replace(
            self,
            noise=min(max(learnt, LEAST_NOISE**2), MOST_NOISE**2),
            mean=_within_rates(mean),
            variance=variance * (1 - up / total),
            down_mean=_within_rates(down_mean),
            down_variance=down_variance * (1 - down / total),
        )

    def _withheld(self, transfer: Transfer) -> LinkBelief:
        """Return what an incomplete transfer bounds: the uplink was at most this fast.

        Only a bound below the belief says anything.
        """
        waited_s = transfer.took_s - self.delay_s
        most_nbytes = max(transfer.nbytes + transfer.ahead_nbytes, SEGMENT_NBYTES)
        surprise, noise = self._surprise(8 * most_nbytes / self.uplink_bps, waited_s)
        return self if surprise >= 0 else self._corrected(surprise, noise, 1.0)

    def _delayed(self, sample_s: float) -> LinkBelief:
        # A stall, or a wait behind other bytes, is neither delay nor jitter: taken for either,
        # it would silence the samples of all small transfers. A delay that stays longer is
        # learnt all the same, step by step.
        off_s = min(max(0.0, sample_s) - self.delay_s, MOST_JITTERS * self.jitter_s)
        gain = DELAY_FALL if off_s < 0 else DELAY_RISE
        jitter_s = self.jitter_s + JITTER_GAIN * (abs(off_s) - self.jitter_s)
        return replace(
            self,
            delay_s=self.delay_s + gain * off_s,
            jitter_s=max(LEAST_JITTER_S, jitter_s),
        )

    def _served(self, evidence: Evidence, placement: Placement | None) -> LinkBelief:
        belief = self
        queue_s = evidence.queue_s
        if queue_s is not None and queue_s >= 0 and isfinite(queue_s):
            smoothed_s = belief.queue_s + QUEUE_GAIN * (queue_s - belief.queue_s)
            belief = replace(belief, queue_s=smoothed_s)
        if placement is None:
            return belief
        return replace(
            belief,
            head_scale=_rescaled(belief.head_scale, evidence.head_s, placement.head_s),
            tail_scale=_rescaled(belief.tail_scale, evidence.tail_s, placement.tail_s),
        )


def _is_sound(transfer: Transfer) -> bool:
    return (
        isfinite(transfer.took_s)
        and transfer.took_s >= 0
        and (transfer.up_s is None or 0 <= transfer.up_s <= transfer.took_s)
        and min(transfer.nbytes, transfer.reply_nbytes, transfer.ahead_nbytes) >= 0
    )


def _widened(variance: float, by: float) -> float:
    """Never beyond `MOST_VARIANCE`, unless a surprise has put it there."""
    return max(variance, min(variance + by, MOST_VARIANCE))


def _rescaled(scale: float, took_s: float | None, profiled_s: float) -> float:
    if took_s is None or not took_s > 0 or not isfinite(took_s) or profiled_s < LEAST_STAGE_S:
        return scale
    smoothed = scale + SCALE_GAIN * (took_s / profiled_s - scale)
    return min(max(smoothed, LEAST_SCALE), MOST_SCALE)


def _log_rate(rate_bps: float) -> float:
    return log(min(max(rate_bps, LEAST_BPS), MOST_BPS))


def _within_rates(mean: float) -> float:
    return min(max(mean, log(LEAST_BPS)), log(MOST_BPS))


@cache
def normal_quantiles(count: int) -> Floats:
    """[count] points of the standard normal distribution, equally probable, ascending."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((index + 0.5) / count) for index in range(count)])
