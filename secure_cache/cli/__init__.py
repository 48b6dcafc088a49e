"""Floor 8: one module per command group; argument parsing and exit codes, nothing else."""
