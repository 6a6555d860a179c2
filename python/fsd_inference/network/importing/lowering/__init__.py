"""Lowering of feed-forward graphs of operators to chains of sparse layers.

`Graph` is filled operator by operator; `lower` turns it into layers. A tensor of the graph is an int64 array of
references to scalars, with the shape of one sample: whatever only moves values (reshaping, transposing, slicing,
padding, concatenation) is NumPy indexing of that array, and costs no neurons.
"""

from fsd_inference.network.importing.lowering.blocks import Refs
from fsd_inference.network.importing.lowering.compose import clamp
from fsd_inference.network.importing.lowering.facts import Facts
from fsd_inference.network.importing.lowering.graph import MAX_FEATURES, MOST_CONNECTIONS, Graph
from fsd_inference.network.importing.lowering.lower import lower
from fsd_inference.network.importing.lowering.windows import Windows

__all__ = ["MAX_FEATURES", "MOST_CONNECTIONS", "Facts", "Graph", "Refs", "Windows", "clamp", "lower"]
