"""Channels: what carries frames between the ranks of one attempt."""
