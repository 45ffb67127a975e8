"""Pure comparison: error budgets, tolerances, and where a result differs."""
