"""`qnas-search bits`: budgets as they are written, and what is shown of a choice."""
