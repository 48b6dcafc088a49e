"""Floor 2: a C2SP tlog-tiles transparency log over the storage port. Entries are opaque bytes."""
