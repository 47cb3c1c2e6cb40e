"""The integer network, the hinge of every file, and its interpreter, the definition of what it computes."""
