"""Time, cost and memory of runs before they are made, and which way of running a network is best."""
