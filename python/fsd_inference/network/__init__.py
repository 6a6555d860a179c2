"""Networks and their inputs: model, file format, importers, generators and data sets."""

from fsd_inference.network.model import IDENTITY, RELU, Activation, KernelArrays, Layer, Network

__all__ = ["IDENTITY", "RELU", "Activation", "KernelArrays", "Layer", "Network"]
