"""Channel wrappers for tests."""
