"""Networks and their inputs: data model, file formats, importers, generators and data sets."""

from fsd_inference.network.activation import IDENTITY, RELU, Activation, RowGroup
from fsd_inference.network.categories import read_categories, write_categories
from fsd_inference.network.classes import accuracy, load_classes
from fsd_inference.network.datasets import digits
from fsd_inference.network.fidelity import Check
from fsd_inference.network.graph_challenge import graph_challenge
from fsd_inference.network.importing.files import import_network
from fsd_inference.network.importing.graph_challenge_folder import graph_challenge_folder
from fsd_inference.network.input_files import load_inputs, load_parts
from fsd_inference.network.inputs import as_batch, as_inputs
from fsd_inference.network.layer import KernelArrays, Layer
from fsd_inference.network.model import Network
from fsd_inference.network.output_files import check_output_format, save_labels, save_outputs
from fsd_inference.network.output_function import OutputFunction
from fsd_inference.network.random_network import random_network
from fsd_inference.network.source import LayerSource

__all__ = [
    "IDENTITY",
    "RELU",
    "Activation",
    "Check",
    "KernelArrays",
    "Layer",
    "LayerSource",
    "Network",
    "OutputFunction",
    "RowGroup",
    "accuracy",
    "as_batch",
    "as_inputs",
    "check_output_format",
    "digits",
    "graph_challenge",
    "graph_challenge_folder",
    "import_network",
    "load_classes",
    "load_inputs",
    "load_parts",
    "random_network",
    "read_categories",
    "save_labels",
    "save_outputs",
    "write_categories",
]
