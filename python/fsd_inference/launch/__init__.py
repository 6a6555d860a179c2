"""How ranks are started: as local processes."""
