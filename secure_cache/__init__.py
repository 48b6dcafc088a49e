"""secure-cache: a remote build cache that a pull request cannot poison."""

__version__ = "0.1.0"
