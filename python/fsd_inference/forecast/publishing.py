"""The effect of an account's publishing quota on a run, in closed form: longer layers, or a run that cannot succeed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsd_inference.config import Clocks
from fsd_inference.forecast.frames import Floats
from fsd_inference.partitioning.plan import ExchangePlan
from fsd_inference.token_bucket import share_of_publishing
from fsd_inference.units import seconds_text


def paced_s(periods: Sequence[float], messages: Floats, quota_per_s: float) -> tuple[float, ...]:
    """Return the periods of layers, lengthened where a rank must wait to publish what it sends after them.

    A rank has its whole burst at the beginning, gets its share of the rate during each period, and saves at most a
    burst of it for later.

    Parameters
    ----------
    periods : sequence of float
        Seconds that each layer takes without a quota.
    messages : ndarray of float64, exchanges x P
        Messages that each rank publishes after each layer but the last.
    quota_per_s : float
        Messages a second that the account may publish.
    """
    share = share_of_publishing(quota_per_s, messages.shape[1])
    tokens, paced = share.burst, list(periods)
    for layer, count in enumerate(messages.max(axis=1).tolist()):
        tokens += periods[layer] * share.per_s - count
        paced[layer] += max(0.0, -tokens / share.per_s)
        tokens = min(share.burst, max(0.0, tokens))
    return tuple(paced)


def longest_publishing_s(messages: Floats, quota_per_s: float) -> float:
    """Return the longest time in seconds that a rank takes to publish the messages of one step, after its burst.

    The parameters are those of `paced_s`, the messages those of one micro-batch.
    """
    share = share_of_publishing(quota_per_s, messages.shape[1])
    return max(0.0, float(messages.max(initial=0.0)) - share.burst) / share.per_s


def stall_problem(longest_s: float, quota_per_s: float, clocks: Clocks) -> str | None:
    """Return why a run would stall whose ranks take up to `longest_s` to publish a step; None if it would not."""
    if longest_s <= clocks.stall_s:
        return None
    return (
        f"publishing the messages of a layer takes {seconds_text(longest_s)} at the account's quota of "
        f"{quota_per_s:,.0f} messages a second, and ranks wait {clocks.stall_s:g} s for a message"
    )


def plan_problem(plan: ExchangePlan, micro_batches: int, quota_per_s: float, clocks: Clocks) -> str | None:
    """Return why no run of a plan can publish its messages in time, if that is certain; else None.

    Each edge of the plan is at least one message in each micro-batch; large ones are several.

    Parameters
    ----------
    plan : ExchangePlan
    micro_batches : int
    quota_per_s : float
        Messages a second that the account may publish.
    clocks : Clocks
        The run's timeouts.
    """
    messages: Floats = np.zeros((len(plan.exchanges), plan.workers))
    for layer, exchange in enumerate(plan.exchanges):
        np.add.at(messages[layer], [edge.source for edge in exchange], 1)
    if stalls := stall_problem(longest_publishing_s(messages, quota_per_s), quota_per_s, clocks):
        return stalls
    whole_s = longest_publishing_s(micro_batches * messages.sum(axis=0, keepdims=True), quota_per_s)
    if whole_s <= clocks.run_s:
        return None
    return (
        f"publishing the messages of the run takes {seconds_text(whole_s)} at the account's quota of "
        f"{quota_per_s:,.0f} messages a second, and its run clock is {clocks.run_s:g} s"
    )
