"""`python -m secure_cache` is the console script."""

from secure_cache.cli.main import main

if __name__ == "__main__":
    main()
