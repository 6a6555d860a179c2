"""Fully serverless distributed inference for sparse neural networks."""
