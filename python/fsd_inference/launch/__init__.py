"""Starting the ranks of a run as local processes."""
