"""The command line interface `fsd`, with one module for each command."""
