"""The page of `qnas-bench report`: result files -> typed documents -> series -> charts and tables."""
