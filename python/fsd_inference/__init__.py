"""Fully serverless distributed inference for sparse neural networks.

The names below are imported when they are first used: the process of a rank, and the command line's help, need few.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsd_inference.config import Clocks
    from fsd_inference.errors import FsdError
    from fsd_inference.network import Activation, Layer, Network, digits, graph_challenge, random_network
    from fsd_inference.partition import cut as partition
    from fsd_inference.records import RunReport, Usage
    from fsd_inference.report import Report
    from fsd_inference.session import Inference, Progress, Push, Session, push

_ROOMS = {
    "Activation": "network",
    "Clocks": "config",
    "FsdError": "errors",
    "Inference": "session",
    "Layer": "network",
    "Network": "network",
    "Progress": "session",
    "Push": "session",
    "Report": "report",
    "RunReport": "records",
    "Session": "session",
    "Usage": "records",
    "digits": "network",
    "graph_challenge": "network",
    "push": "session",
    "random_network": "network",
}

__all__ = [
    "Activation",
    "Clocks",
    "FsdError",
    "Inference",
    "Layer",
    "Network",
    "Progress",
    "Push",
    "Report",
    "RunReport",
    "Session",
    "Usage",
    "digits",
    "graph_challenge",
    "partition",
    "push",
    "random_network",
]


def __getattr__(name: str) -> Any:
    if name == "partition":  # a package that can be called: `fsd.partition(network, ...)`
        return import_module("fsd_inference.partition")
    if name in _ROOMS:
        return getattr(import_module(f"fsd_inference.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
