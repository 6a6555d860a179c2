"""What a run costs: dated prices, the cost model, the paper's figures, and counts before the run."""
