"""What the importers of graphs of operators return."""

from __future__ import annotations

from typing import NamedTuple

from fsd_inference.network.importing.lowering import Facts
from fsd_inference.network.importing.tracing import Traced
from fsd_inference.network.layer import Layer
from fsd_inference.network.output_function import OutputFunction


class Imported(NamedTuple):
    """An imported model.

    Attributes
    ----------
    layers : list of Layer
        Its layers.
    output : OutputFunction or None
        What it applies to the outputs of each sample.
    origin : str
        What `Network.origin` says of it.
    facts : Facts
        Its sizes.
    trace : list of Traced
        Which neurons hold its tensors.
    """

    layers: list[Layer]
    output: OutputFunction | None
    origin: str
    facts: Facts
    trace: list[Traced]
