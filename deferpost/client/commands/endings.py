"""How a command of the client ends: its exit status, and what it says then."""

from __future__ import annotations

import enum

from deferpost.client.errors import ClientError, NotEnded, Problem, Unreachable

__all__ = ["Ending", "ending_of"]

#: The states of jobs that somebody or something has ended.
_ENDED_FROM_OUTSIDE = frozenset({"canceled", "expired"})


class Ending(enum.IntEnum):
    """The exit statuses."""

    SUCCESS = 0
    FAILED = 1  #: the job or the call failed, or the server refused it
    USAGE = 2  #: the command line is wrong, or a file that it names cannot be read
    UNREACHABLE = 3  #: there was no answer, or not in time; the job may go on
    CANCELED = 4  #: the job was canceled, or has expired
    INTERRUPTED = 130  #: Ctrl-C; the job goes on
    TERMINATED = 143  #: SIGTERM; the job goes on
    BROKEN_PIPE = 141  #: whoever read the output has left


def ending_of(error: ClientError, state: str | None = None) -> Ending:
    """The exit status for an error.

    :param state: of the job, where it is known.
    """
    if isinstance(error, (NotEnded, Unreachable)):
        return Ending.UNREACHABLE
    if state in _ENDED_FROM_OUTSIDE or (isinstance(error, Problem) and error.status == 410):
        return Ending.CANCELED
    return Ending.FAILED
