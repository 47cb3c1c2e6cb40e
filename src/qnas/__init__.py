"""qnas: search, train, export and measure exact mixed-precision super-resolution networks."""

__version__ = "0.1.0"
