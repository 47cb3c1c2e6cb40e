"""Search spaces as data, and what their candidates cost."""
