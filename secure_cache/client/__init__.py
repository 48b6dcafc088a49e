"""Floor 6: the CI's side. What it needs of a server goes over HTTP."""
