"""What every runtime says of the nodes that it ran, and how fast the machine could have been."""
