"""Pruning of networks: by magnitude, or calibrated on a sample of inputs."""

from fsd_inference.network.pruning.prune import prune

__all__ = ["prune"]
