"""From scores and counts to masks. One selection a file; see `lightning_prune.protocols.Selection`."""
