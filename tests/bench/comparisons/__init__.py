"""The paper's comparisons from the cost and time models: tables and figures of docs/comparisons.md (`make figures`)."""
