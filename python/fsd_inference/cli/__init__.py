"""The command line, `fsd`: one file a command."""
