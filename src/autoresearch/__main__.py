"""``python -m autoresearch`` and the command ``autoresearch`` are the command line."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded ends it in one line as well."""
    try:
        from autoresearch.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was begun\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
