"""Channels, which carry frames between the ranks of one attempt."""
