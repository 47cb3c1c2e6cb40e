"""Small networks, files and mutations that tests and benchmarks share."""
