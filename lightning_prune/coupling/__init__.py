"""Which entries of which tensors are one unit: found in the model's graph, and proved by removing some."""
