"""The command line of the daemon: ``twistd deferpost`` and ``deferpost``."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from deferpost._version import __version__
from deferpost.errors import ConfigurationError, DeclarationError
from deferpost.settings import FLAGS, Flag, Settings, dump_toml, load_settings

__all__ = ["Options", "main", "makeService"]

# Where what is said of an option begins; a longer option has a line of its own.
_HELP_COLUMN = 26


class Options(usage.Options):
    """The options of the daemon.  What they mean is in :mod:`deferpost.settings`."""

    synopsis = "[options] module:app"
    longdesc = (
        "Serves module:app (an App, or a handler, which is then at /) from the current folder or "
        "from Python's path. What the options set can stand in the TOML file of --config and in "
        "the environment too, as DEFERPOST_LISTEN or DEFERPOST_POOLS_THREAD_SIZE; "
        "--print-config shows all of it as such a file. Options take precedence over the "
        "environment, and the environment over the file.\n\n"
        "The command deferpost is a client, too: deferpost post URL FILE posts a file and prints "
        "the answer, and deferpost jobs, wait, events, result and cancel look after jobs; each has "
        "its own --help."
    )
    optFlags = [  # noqa: RUF012 (Twisted's way)
        ["check-config", None, "Check the configuration and the app, and exit."],
        ["print-config", None, "Print the configuration that would be used, as TOML, and exit."],
    ]
    optParameters = [  # noqa: RUF012 (Twisted's way)
        ["config", "c", None, "Read the configuration from this TOML file."],
    ]

    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[str, str]] = []

    def getSynopsis(self) -> str:
        """The first line of the help, for ``deferpost`` and for ``twistd deferpost``."""
        synopsis: str = super().getSynopsis()
        return synopsis if self.parent is not None else f"Usage: deferpost {synopsis}"

    def getUsage(self, width: int | None = None) -> str:
        """The help but for its first line: the options by topic, as the table has them.

        :param width: of the lines; by default that of the terminal as ``COLUMNS`` says, or 80.
        """
        width = width or int(os.environ.get("COLUMNS", "80"))
        topics: dict[str, list[str]] = {}
        for flag in FLAGS:
            if flag.name != "app":
                topics.setdefault(flag.topic, []).append(f"{flag.name}=")
        known = {flag.name for flag in FLAGS}
        topics["This command"] = [
            name for name in self.longOpt if name.removesuffix("=") not in known
        ]
        parts = ["\n"]
        for topic, names in topics.items():
            parts += [f"{topic}:\n", *(self._option_usage(name, width) for name in names), "\n"]
        paragraphs = [textwrap.fill(part, width) for part in self.longdesc.split("\n\n")]
        return "".join([*parts, "\n\n".join(paragraphs), "\n"])

    def _option_usage(self, name: str, width: int) -> str:
        long = name.removesuffix("=")
        short = "".join(
            f"-{letter}, " for letter in self.shortOpt if self.synonyms.get(letter) == long
        )
        head = f"  {short}--{name}"
        indent = " " * _HELP_COLUMN
        lines = textwrap.wrap(
            self.docs[long].strip(), width, initial_indent=indent, subsequent_indent=indent
        )
        if len(head) + 2 > _HELP_COLUMN:
            return "\n".join([head, *lines, ""])
        return "\n".join([head + lines[0][len(head) :], *lines[1:], ""])

    def opt_version(self) -> NoReturn:
        """Print the version of deferpost and exit."""
        print(f"deferpost {__version__}")
        raise SystemExit(0)

    def parseArgs(self, *names: str) -> None:
        """Take the name of the app."""
        if len(names) > 1:
            raise usage.UsageError(f"one app is served, not {len(names)}: {' '.join(names)}")
        self.given.extend(("app", name) for name in names)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse; what is wrong is one message and exit status 1.

        :raises SystemExit: something is wrong.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            _fail(f"{error}\nTry deferpost --help.")

    def postOptions(self) -> None:
        """Read the settings from every source."""
        path = self["config"] or os.environ.get("DEFERPOST_CONFIG")
        # Absolute, for a reload after the program has gone to another folder.
        self._file = None if path is None else (path, os.path.abspath(path))
        try:
            self.settings = self.read()
        except _CannotRead as error:
            _fail(str(error))
        except ConfigurationError as error:
            _fail_configuration(error)
        if self["print-config"]:
            sys.stdout.write(dump_toml(self.settings))
            raise SystemExit(0)
        if self["check-config"]:
            if self.settings.app is not None:
                _build(self, own_signals=False)
            unnamed = "" if self.settings.app is not None else ", but names no app"
            print(f"deferpost: the configuration is correct{unnamed}")
            raise SystemExit(0)

    def read(self) -> Settings:
        """Put the settings together from every source, as each is now.

        :raises deferpost.errors.ConfigurationError: something is wrong.
        """
        name, path = self._file or (None, None)
        return load_settings(
            toml_text=None if name is None or path is None else _read(name, path),
            toml_name=name or "deferpost.toml",
            environ=os.environ,
            flags=self.given,
        )


def _take(flag: Flag) -> Callable[[Options, str], None]:
    def take(options: Options, value: str) -> None:
        options.given.append((flag.name, value))

    default = f" [default: {flag.default}]" if flag.default else ""
    take.__doc__ = f"{flag.help}{default}"
    return take


for _flag in FLAGS:
    if _flag.name != "app":  # which is the argument
        setattr(Options, f"opt_{_flag.name.replace('-', '_')}", _take(_flag))


class _CannotRead(ConfigurationError):
    """The file of the configuration cannot be read."""

    def __str__(self) -> str:
        return self.problems[0]


def _read(name: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise _CannotRead([f"cannot read the configuration {name}: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise _CannotRead(
            [f"the configuration {name} is not UTF-8: byte {error.start} is wrong"]
        ) from None


def _fail(message: str) -> NoReturn:
    print(f"deferpost: {message}", file=sys.stderr)
    raise SystemExit(1)


def _fail_configuration(error: ConfigurationError) -> NoReturn:
    # The app is the argument here.
    problems = [problem.replace("option --app:", "argument:", 1) for problem in error.problems]
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    _fail(f"the configuration has {count}:\n  " + "\n  ".join(problems))


_NO_APP = "no app is named; give one as module:app, such as examples.documents:app"


def _build(options: Options, *, own_signals: bool) -> Any:
    """The service, or one message and exit status 1."""
    from twisted.internet import reactor

    from deferpost.loading import Modules, load_app
    from deferpost.reload import Loaded
    from deferpost.service import DaemonService

    settings = options.settings
    if settings.app is None:
        _fail(_NO_APP)
    modules = Modules(os.getcwd())

    def load() -> Loaded:
        """Everything anew, as it is now."""
        settings = options.read()
        name = settings.app
        if name is None:
            raise DeclarationError(_NO_APP)
        app, before = modules.load_again(name)
        return Loaded(app, settings, lambda: modules.restore(name, before))

    try:
        app = load_app(settings.app)
        return DaemonService(app, settings, reactor, own_signals=own_signals, load=load)
    except DeclarationError as error:
        _fail(f"{error}\n{error.traceback}".rstrip() if error.traceback else str(error))
    except ConfigurationError as error:
        _fail_configuration(error)


def makeService(options: Options) -> IService:
    """The service of the daemon, for twistd.

    :param options: the parsed options.
    """
    service: IService = _build(options, own_signals=True)
    if options.settings.log_format == "json" and options.parent is not None:
        from twisted.internet import reactor

        from deferpost.logs import LoggedAsJSON

        return LoggedAsJSON(service, options.parent, reactor)
    return service


def main() -> None:
    """The ``deferpost`` command, where it is not a client: the same daemon, in the foreground."""
    from twisted.scripts import twistd

    Options().parseOptions(sys.argv[1:])  # so that errors speak of this command
    sys.argv[1:] = ["--nodaemon", "--pidfile=", "deferpost", *sys.argv[1:]]
    twistd.run()
