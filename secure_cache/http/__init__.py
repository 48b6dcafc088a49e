"""Floor 5: the protocols. Handlers are thin; the one status table is in `errors`."""
