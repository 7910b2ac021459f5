"""Where the `fairweather` command begins."""

import sys


def main() -> None:
    """Run the `fairweather` command."""
    try:
        from fairweather.cli.commands import app, run_command
    except KeyboardInterrupt:  # as a later one ends
        sys.exit(1)
    run_command(app)
