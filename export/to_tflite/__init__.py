"""Integer network -> TFLite."""
