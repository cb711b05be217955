"""What lives and dies together. One pattern a file; see `lightning_prune.protocols.Pattern`."""
