"""The command ``deferpost``: the daemon, or the client where the first word is one of its own.

Only what that word asks for is imported.
"""

from __future__ import annotations

import sys

from deferpost.client.commands import NAMES

__all__ = ["main"]


def main() -> None:
    """Do what the command line says; the exit status is the client's, or the daemon's."""
    if sys.argv[1:] and sys.argv[1] in NAMES:
        from deferpost.client.commands.main import run_command

        raise SystemExit(run_command(sys.argv[1:]))
    from deferpost.tap import main as run_daemon

    run_daemon()


if __name__ == "__main__":
    main()
