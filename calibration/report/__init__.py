"""The page of `qnas-calibrate --html`: pictures and histograms of a run -> one document."""
