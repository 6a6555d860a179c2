"""Channels that wrap another one, for tests."""
