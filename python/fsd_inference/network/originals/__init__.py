"""The models that networks are imported from, run by the frameworks that they were made with."""
