"""What networks and files cost: MACs, BitOps, bytes."""
