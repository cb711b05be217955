"""How a logit becomes a mask. One gate a file; see `lightning_prune.protocols.Gate`."""
