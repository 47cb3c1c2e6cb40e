"""The patches that calibrate: chosen, written down, tamed."""
