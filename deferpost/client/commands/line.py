"""The command lines of the client: what can be asked for, and how that is explained."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

from deferpost.client.addresses import base_of
from deferpost.client.commands import NAMES
from deferpost.units import parse_duration

__all__ = ["TOKEN_VARIABLE", "make_parser", "read_line"]

TOKEN_VARIABLE = "DEFERPOST_TOKEN"

_ENDINGS = """\
exit status:
  0    success
  1    the job or the call failed, or the server refused it
  2    the command line is wrong, or a file cannot be read
  3    the server was not reached, or the time was over; the job may go on
  4    the job was canceled, or it or its result has expired
  130  interrupted by Ctrl-C; the job goes on

The environment variable DEFERPOST_TOKEN has the token where no option does.
"""

_POST = """\
Posts FILE and prints the answer.  The server is asked to make a job of the call if it takes longer
than a second; the job is then followed to its end, which may be on another connection.  Where no
answer came the call is sent again with the same Idempotency-Key, so that a server which keeps jobs
runs it once.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="deferpost",
        epilog=_ENDINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, help: str, url: str, description: str | None = None) -> Any:
        made = commands.add_parser(
            name,
            help=help,
            description=description or f"{help[0].upper()}{help[1:]}.",
            epilog=_ENDINGS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        made.add_argument("url", metavar="URL", type=_url, help=url)
        made.add_argument("--token", help="send this bearer token; other users may see it in ps")
        made.add_argument("--token-file", metavar="FILE", help="send the token that is in a file")
        made.add_argument(
            "--timeout", metavar="TIME", type=_duration, help="give up after this time, as 90 or 5m"
        )
        made.add_argument("--json", action="store_true", help="print one JSON document")
        made.add_argument("--quiet", "-q", action="store_true", help="say nothing but errors")
        return made

    post = add("post", "post a file and print the answer", "of the route", _POST)
    post.add_argument("file", metavar="FILE", help="what to post; - for standard input")
    how = post.add_mutually_exclusive_group()
    how.add_argument(
        "--async", dest="at_once", action="store_true", help="have a job made of it at once"
    )
    how.add_argument(
        "--wait",
        metavar="TIME",
        type=_duration,
        help="have a job made of it after this time, not after a second",
    )
    how.add_argument(
        "--sync", action="store_true", help="have no job made of it: wait on this connection"
    )
    post.add_argument(
        "--detach", action="store_true", help="print the URL of the job, and do not wait for it"
    )
    post.add_argument("--key", help="the Idempotency-Key; by default a new one")
    post.add_argument("--content-type", metavar="TYPE", help="the media type of the file")
    post.add_argument(
        "--header",
        "-H",
        metavar="FIELD",
        action="append",
        default=[],
        type=_header,
        help='a header field, as "Name: value"; may be repeated',
    )
    post.add_argument("--webhook", metavar="URL", help="a URL to be told of the job's end")
    post.add_argument(
        "--deadline", metavar="TIME", type=_duration, help="how long waiting and running may take"
    )
    _add_output(post)

    jobs = add("jobs", "list jobs, newest first", "of the app: for a daemon, the root")
    jobs.add_argument(
        "--state", action="append", default=[], help="only those in a state; may be repeated"
    )
    jobs.add_argument("--limit", metavar="N", type=_count, default=50, help="how many [50]")

    add("wait", "wait for the end of a job", "of the job")
    events = add("events", "print what happens to a job, as it happens", "of the job")
    events.add_argument(
        "--after", metavar="N", type=_number, default=0, help="only events behind this one"
    )
    _add_output(add("result", "wait for a job, and print its result", "of the job"))
    add("cancel", "cancel a job", "of the job")
    assert set(commands.choices) == set(NAMES)
    return parser


def read_line(words: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Read a command line; what is wrong is told, with exit status 2.

    :param words: from the name of the command on.
    :param environ: of which the token counts.
    :returns: the options; ``token`` is that of the first place that has one.
    """
    parser = make_parser()
    given = parser.parse_args(words)
    if given.token is not None and given.token_file is not None:
        _fail("--token and --token-file are two places for one token")
    if given.token_file is not None:
        given.token = _token_of(given.token_file)
    elif given.token is None:
        given.token = environ.get(TOKEN_VARIABLE) or None
    if given.command == "post" and given.detach and given.sync:
        _fail("--detach waits for nothing, and --sync is to wait")
    return given


def _add_output(parser: Any) -> None:
    parser.add_argument(
        "--output",
        "-o",
        metavar="FILE",
        help="write the answer to this file, once it is whole; by default it is printed",
    )


def _fail(message: str) -> NoReturn:
    print(f"deferpost: {message}\nTry deferpost {NAMES[0]} --help.", file=sys.stderr)
    raise SystemExit(2)


def _token_of(path: str) -> str:
    try:
        with open(os.fspath(path), encoding="ascii") as file:
            return file.read(64 * 1024).strip()
    except OSError as error:
        _fail(f"cannot read the token in {path}: {error.strerror}")
    except UnicodeDecodeError:
        _fail(f"what is in {path} is no token: a token is ASCII")


def _url(text: str) -> str:
    if "://" not in text:
        text = f"http://{text}"
    try:
        base_of(text)
        urlsplit(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 15:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _count(text: str) -> int:
    number = _number(text)
    if not number:
        raise argparse.ArgumentTypeError("at least one")
    return number


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f'{text!r} is no header field: write "Name: value"')
    return name.strip(), value.strip()
