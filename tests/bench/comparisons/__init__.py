"""The paper's comparisons, reproduced with the cost and time models for docs/comparisons.md (`make figures`)."""
