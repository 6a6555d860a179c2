"""The cost of a run: dated AWS price tables, the cost model, and its comparison with the paper's figures."""
