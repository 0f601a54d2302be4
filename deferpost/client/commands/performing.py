"""Performs a command that was read: what comes of it is an exit status, and every error is told."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from argparse import Namespace
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError

from deferpost.client.client import Client
from deferpost.client.commands.acts import ACTS, Session, print_json
from deferpost.client.commands.endings import Ending, ending_of
from deferpost.client.commands.running import Stopped
from deferpost.client.commands.screen import Screen
from deferpost.client.errors import ClientError, Problem

__all__ = ["perform"]

#: Seconds without a sign of life after which a connection is taken to be lost.
_SILENCE_SECONDS = 60.0


async def perform(given: Namespace, body: BinaryIO | None, reactor: Any, stopped: Stopped) -> int:
    """Do what a command line says; to be canceled when it is to stop.

    :param given: the command line.
    :param body: the file to be posted; None where none is.
    :param reactor: for TCP, TLS and time.
    :param stopped: says why it was canceled.
    :returns: the exit status.
    """
    screen = Screen(sys.stderr, reactor, os.environ, quiet=given.quiet)

    def notice(error: ClientError, seconds: float) -> None:
        screen.say(f"{error}; trying again in {seconds:.1f} s")

    parts = urlsplit(given.url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    try:
        client = Client(
            f"{parts.scheme}://{parts.netloc}",
            token=given.token,
            reactor=reactor,
            timeout=_SILENCE_SECONDS,
            notice=notice,
        )
    except ValueError as error:
        screen.tell(str(error))
        return Ending.USAGE
    session = Session(given, reactor, screen, client, path, body)
    try:
        return await ACTS[given.command](session)
    except CancelledError:
        screen.clear()
        _say_stopped(session, stopped.by)
        if stopped.by == 0:
            return Ending.UNREACHABLE
        return Ending.TERMINATED if stopped.by == signal.SIGTERM else Ending.INTERRUPTED
    except ClientError as error:
        screen.clear()
        return _failed(session, error)
    except ValueError as error:
        screen.clear()
        screen.tell(str(error))
        return Ending.USAGE
    except BrokenPipeError:
        screen.clear()
        # What is still kept for standard output is not to be tried at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Ending.BROKEN_PIPE
    except OSError as error:
        screen.clear()
        screen.tell(f"cannot write the output: {error.strerror or error}")
        return Ending.FAILED


def _say_stopped(session: Session, by: int | None) -> None:
    """Tell why it has stopped, and how to go on."""
    screen = session.screen
    what = "the time is over" if by == 0 else "interrupted"
    if session.job is None:
        screen.tell(what)
    elif session.given.command == "cancel":
        screen.tell(f"{what}; the job may not have been told")
    else:
        url = shlex.quote(session.job.url)
        screen.tell(f"{what}; the job goes on")
        screen.say(f"to get its result: deferpost result {url}")
        screen.say(f"to cancel it: deferpost cancel {url}")


def _failed(session: Session, error: ClientError) -> int:
    """Tell an error, and return the exit status."""
    document = session.document
    state = None if document is None else document.state
    if isinstance(error, Problem) and state in ("canceled", "expired"):
        message = ": ".join(filter(None, (error.title, error.detail)))
        message += f" ({error.reason})" if error.reason else ""
    elif state == "failed":
        message = f"the job failed: {error}"
    else:
        message = str(error)
    session.screen.tell(message)
    if session.given.json and session.given.command in ("post", "result"):
        problem: dict[str, Any] = {"detail": str(error)}
        if isinstance(error, Problem):
            problem = error.members or {
                "status": error.status,
                "title": error.title,
                "detail": error.detail,
            }
        print_json(
            {
                "url": None if session.job is None else session.job.url,
                "job": None if document is None else document.members,
                "answer": None,
                "problem": problem,
            }
        )
    return ending_of(error, state)
