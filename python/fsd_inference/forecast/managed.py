"""Lambda Managed Instances: the function that fits an EC2 instance type, and what a fleet of instances costs a day."""

from __future__ import annotations

import re

from fsd_inference.cost.prices import INSTANCE, PriceTable
from fsd_inference.errors import SettingError
from fsd_inference.limits import (
    LARGEST_MANAGED_MB,
    LARGEST_MANAGED_VCPUS,
    MANAGED_ENVIRONMENTS,
    MANAGED_FEE,
)

_TYPE = re.compile(r"([cmr])[0-9]+[a-z]*\.([0-9]*)(x?)large")
_GIB_PER_VCPU = {"c": 2, "m": 4, "r": 8}
"""Memory in GiB for each vCPU by family; functions on Managed Instances have one of the same three ratios."""


def managed_function(instance: str) -> tuple[int, int]:
    """Return vCPUs and memory in MB of the largest function on an instance type, one vCPU's share left to the system.

    AWS documents no figure for what the system takes of an instance.

    Raises
    ------
    SettingError
        The name is not that of an instance type with 2, 4 or 8 GiB for each vCPU.
    """
    found = _TYPE.fullmatch(instance)
    if found is None or (found[2] and not found[3]) or found[2] in {"0", "1"}:
        raise SettingError(
            f"managed_instances must be an EC2 instance type of a family c, m or r, such as m7g.4xlarge, "
            f"not {instance!r}"
        )
    gib = _GIB_PER_VCPU[found[1]]
    vcpus = 4 * int(found[2] or 1) if found[3] else 2
    mine = min(vcpus - 1, LARGEST_MANAGED_VCPUS, LARGEST_MANAGED_MB // (1024 * gib))
    return mine, mine * gib * 1024


def fleet_usd_a_day(instance: str, prices: PriceTable) -> float:
    """Return the cost in dollars a day of the smallest fleet, an instance for each environment, without requests.

    Raises
    ------
    SettingError
        The price table has no price of the instance type.
    """
    return MANAGED_ENVIRONMENTS * 24 * prices[f"{INSTANCE}{instance}"].usd(1) * (1 + MANAGED_FEE)
