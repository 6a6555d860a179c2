"""Readers of input files, one format a module: files in, float32 CSR of samples x features out."""
