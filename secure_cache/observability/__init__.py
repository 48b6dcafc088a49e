"""Floor 1: logging and metrics. Only `compose` and `cli` import it."""
