"""What is added to the loss for learned probabilities. One a file; see `lightning_prune.protocols.MaskRegularizer`."""
