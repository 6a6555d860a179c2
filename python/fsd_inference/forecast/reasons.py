"""What most of an option's time and cost are spent on, in words."""

from __future__ import annotations

from fsd_inference.cost.model import MICROVM_TIME, SNAPSHOTS, Cost
from fsd_inference.forecast.times import RunTimes
from fsd_inference.forecast.timing import PUBLISH_QUOTA, Timing


def time_reason(times: RunTimes, timing: Timing) -> str:
    """Return what most of a run's time is spent on, and its share."""
    computing = sum(times.compute_s)
    quota = f"quota-bound: waiting to publish at most {timing[PUBLISH_QUOTA]:,.0f} messages a second"
    parts = {
        "compute-bound": computing,
        "latency-bound: exchanging": sum(times.layers_s) - computing - times.paced_s,
        quota: times.paced_s,
        "load-bound": times.load_s,
        "start-bound": times.wall_s - sum(times.layers_s) - times.load_s - times.store_s - times.again_s,
        "bound by checkpoints and hand-ons": times.again_s,
    }
    name, seconds = max(parts.items(), key=lambda part: part[1])
    return f"{name} {seconds / times.wall_s:.0%} of the time"


def cost_reason(cost: Cost) -> str:
    """Return what most of a run's cost is for, and its share."""
    parts = {"functions' time": 0.0, "MicroVMs' time": 0.0, "launches": 0.0, "request-bound": 0.0, "byte-bound": 0.0}
    for line in cost.lines:
        if line.item == SNAPSHOTS:
            name = "launches"
        elif line.unit == "GB":
            name = "byte-bound"
        elif line.service == "Lambda":
            name = "MicroVMs' time" if line.item in MICROVM_TIME else "functions' time"
        else:
            name = "request-bound"
        parts[name] += line.usd
    name, usd = max(parts.items(), key=lambda part: part[1])
    return f"{name} {usd / cost.usd:.0%} of the cost"
