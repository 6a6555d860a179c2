"""Random graphs of operators, lowered to layers and cut over ranks: the bits of serial, close to the operators."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fsd_inference.network import Network
from fsd_inference.network.importing.lowering import lower
from tests.support.random_graphs import SAMPLES, Twin, graphs
from tests.support.schedules import check_answer, random_cut, schedules
from tests.support.virtual import Faults


@given(graphs(), st.integers(1, 6), st.data())
@settings(max_examples=100, deadline=None)
def test_every_cut_of_a_graph_gives_the_bits_of_serial_and_the_values_of_its_operators(
    twin: Twin, workers: int, data: st.DataObject
) -> None:
    layers, _ = lower(twin.graph, twin.tensors[-1][0], "a model")
    network = Network(layers)
    partition = random_cut(twin.random, network, workers)
    x = twin.x.reshape(SAMPLES, -1).astype(np.float32)
    case = data.draw(schedules(network, partition, x))
    assert np.abs(case.serial() - twin.expected()).max() <= twin.tolerance()
    check_answer(case, case.play(faults=Faults(duplicates=0.3, corrupted=0.1)))
