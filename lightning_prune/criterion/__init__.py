"""What a weight is worth. One criterion a file; see `lightning_prune.protocols.Criterion`."""
