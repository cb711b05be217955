"""Who competes with whom, and how many each may keep. One scope a file; see `lightning_prune.protocols.Scope`."""
