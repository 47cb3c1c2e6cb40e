"""`qnas-search bits`: what it is told, bits for architectures, and what is shown."""
