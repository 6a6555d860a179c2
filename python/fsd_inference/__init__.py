"""Fully serverless distributed inference for sparse neural networks.

The names below are imported lazily, because rank processes and the help of the command line need only a few of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsd_inference.config import Clocks, FailurePolicy, FunctionSettings, Tuning
    from fsd_inference.errors import (
        AbortedError,
        AccessDeniedError,
        AsleepError,
        ChannelError,
        DeadlineError,
        FileFormatError,
        FsdError,
        HandedOnError,
        InputError,
        LaneError,
        LimitError,
        NotAllowedError,
        NumericError,
        OutputError,
        PeerGoneError,
        ResourceLimitError,
        RunError,
        SettingError,
        StackError,
        StackUpdatedError,
        StallError,
        StartError,
        StoreError,
        StragglerError,
        VerificationError,
        WorkerDiedError,
    )
    from fsd_inference.forecast.advising import advise
    from fsd_inference.forecast.options import Advice, Question
    from fsd_inference.network import (
        Activation,
        Check,
        Layer,
        Network,
        OutputFunction,
        RowGroup,
        digits,
        graph_challenge,
        import_network,
        random_network,
    )
    from fsd_inference.network.pruning import prune
    from fsd_inference.partitioning import Partition, partition
    from fsd_inference.prediction import Prediction
    from fsd_inference.report import Report
    from fsd_inference.run_report import RunReport
    from fsd_inference.session import Estimator, Inference, Progress, Push, Session, push
    from fsd_inference.session.checking import check
    from fsd_inference.usage import Usage

    __version__: str

_ROOMS = {
    "AbortedError": "errors",
    "AccessDeniedError": "errors",
    "Activation": "network",
    "Advice": "forecast.options",
    "AsleepError": "errors",
    "ChannelError": "errors",
    "Check": "network",
    "Clocks": "config",
    "DeadlineError": "errors",
    "Estimator": "session",
    "FailurePolicy": "config",
    "FileFormatError": "errors",
    "FsdError": "errors",
    "FunctionSettings": "config",
    "HandedOnError": "errors",
    "Inference": "session",
    "InputError": "errors",
    "LaneError": "errors",
    "Layer": "network",
    "LimitError": "errors",
    "Network": "network",
    "NotAllowedError": "errors",
    "NumericError": "errors",
    "OutputError": "errors",
    "OutputFunction": "network",
    "Partition": "partitioning",
    "PeerGoneError": "errors",
    "Prediction": "prediction",
    "Progress": "session",
    "Push": "session",
    "Question": "forecast.options",
    "Report": "report",
    "ResourceLimitError": "errors",
    "RunError": "errors",
    "RowGroup": "network",
    "RunReport": "run_report",
    "Session": "session",
    "SettingError": "errors",
    "StackError": "errors",
    "StackUpdatedError": "errors",
    "StallError": "errors",
    "StartError": "errors",
    "StoreError": "errors",
    "StragglerError": "errors",
    "Tuning": "config",
    "Usage": "usage",
    "VerificationError": "errors",
    "WorkerDiedError": "errors",
    "advise": "forecast.advising",
    "check": "session.checking",
    "digits": "network",
    "graph_challenge": "network",
    "import_network": "network",
    "partition": "partitioning",
    "prune": "network.pruning",
    "push": "session",
    "random_network": "network",
}

__all__ = [
    "AbortedError",
    "AccessDeniedError",
    "Activation",
    "Advice",
    "AsleepError",
    "ChannelError",
    "Check",
    "Clocks",
    "DeadlineError",
    "Estimator",
    "FailurePolicy",
    "FileFormatError",
    "FsdError",
    "FunctionSettings",
    "HandedOnError",
    "Inference",
    "InputError",
    "LaneError",
    "Layer",
    "LimitError",
    "Network",
    "NotAllowedError",
    "NumericError",
    "OutputError",
    "OutputFunction",
    "Partition",
    "PeerGoneError",
    "Prediction",
    "Progress",
    "Push",
    "Question",
    "Report",
    "ResourceLimitError",
    "RowGroup",
    "RunError",
    "RunReport",
    "Session",
    "SettingError",
    "StackError",
    "StackUpdatedError",
    "StallError",
    "StartError",
    "StoreError",
    "StragglerError",
    "Tuning",
    "Usage",
    "VerificationError",
    "WorkerDiedError",
    "__version__",
    "advise",
    "check",
    "digits",
    "graph_challenge",
    "import_network",
    "partition",
    "prune",
    "push",
    "random_network",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("fsd-inference")
    if name in _ROOMS:
        return getattr(import_module(f"fsd_inference.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
