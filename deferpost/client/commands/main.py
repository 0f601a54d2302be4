"""Runs a command of the client, from its command line to its exit status."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, BinaryIO

from deferpost.client.commands.endings import Ending
from deferpost.client.commands.line import read_line

__all__ = ["opened", "run_command"]

_PIECE_BYTES = 256 * 1024


def run_command(words: Sequence[str]) -> int:
    """Do what a command line says.

    :param words: from the name of the command on.
    :returns: the exit status.
    :raises SystemExit: the command line is wrong, or asks for help.
    """
    given = read_line(words, os.environ)
    try:
        body = opened(given.file) if given.command == "post" else None
    except OSError as error:
        print(f"deferpost: cannot read {given.file}: {error.strerror or error}", file=sys.stderr)
        return Ending.USAGE
    except KeyboardInterrupt:
        return Ending.INTERRUPTED
    # This takes a moment to import, which help and mistakes do without.
    from deferpost.client.commands.performing import perform
    from deferpost.client.commands.running import run

    return run(lambda reactor, stopped: perform(given, body, reactor, stopped), given.timeout)


def opened(path: str) -> BinaryIO:
    """The file to be posted, as one that can be sent more than once.

    :raises OSError: it cannot be read.
    """
    # Nothing is closed here: the process ends soon after the file is sent.
    source = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
    if source.seekable():
        return source
    copy: Any = tempfile.TemporaryFile()  # noqa: SIM115
    while piece := source.read(_PIECE_BYTES):
        copy.write(piece)
    copy.seek(0)
    return copy  # type: ignore[no-any-return]
