"""When to prune, and how sparse to be by then. One schedule a file; see `lightning_prune.protocols.Schedule`."""
