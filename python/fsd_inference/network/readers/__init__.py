"""Readers of input files, one module per format; each returns float32 CSR of samples x features."""
