"""The inference engine: the worker's state machine, its threads, and the objects that ranks read and write."""
