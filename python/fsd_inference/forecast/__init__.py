"""Predictions of the time, cost and memory of runs, and the planner that ranks the ways to run a network."""
