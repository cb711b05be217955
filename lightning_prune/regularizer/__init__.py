"""What is added to the loss. One regularizer a file; see `lightning_prune.protocols.Regularizer`."""
