"""Many searches and competitors, each with the training of what it found, and their Pareto front."""
