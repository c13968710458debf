"""``python -m autoresearch`` is the command line."""

from autoresearch.cli import main

if __name__ == "__main__":
    main()
