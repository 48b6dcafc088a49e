"""Floor 4: what auditors ask, answered from an index that is derived from the log alone."""
