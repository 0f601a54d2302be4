"""Standard error: lines for people, and a bar that is drawn seldom and goes."""

from __future__ import annotations

import io

from twisted.internet.task import Clock

from deferpost.client.commands.bar import Following
from deferpost.client.commands.screen import Screen


class Terminal(io.StringIO):
    """What a terminal is given.

    :ivar is_gone: whether it is there no more.
    """

    encoding = "ascii"

    def __init__(self) -> None:
        super().__init__()
        self.is_gone = False

    def isatty(self) -> bool:
        """It is one."""
        return True

    def write(self, text: str) -> int:
        """Show a text, or fail."""
        if self.is_gone:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def test_a_bar_is_drawn_ten_times_in_a_second() -> None:
    """However often things change, the bar does ten times; what does not change is not drawn."""
    clock, terminal = Clock(), Terminal()
    screen = Screen(terminal, clock, {"TERM": "xterm"}, quiet=False)
    screen.show(lambda: Following("running", 0.0, done=clock.seconds() * 1000))
    for _ in range(1000):
        clock.advance(0.001)
    assert 10 <= terminal.getvalue().count("\r\x1b[K") <= 11
    screen.show(lambda: Following("still", 0.0))
    clock.pump([0.1] * 50)
    assert terminal.getvalue().count("still") == 1
    screen.clear()
    assert terminal.getvalue().endswith("still  0:00\r\x1b[K")
    assert not clock.getDelayedCalls()


def test_lines_are_above_the_bar() -> None:
    """A line takes the place of the bar, which comes back below it; none obeys what was sent."""
    clock, terminal = Clock(), Terminal()
    screen = Screen(terminal, clock, {"TERM": "xterm"}, quiet=False)
    screen.show(lambda: Following("running", 0.0))
    screen.say("caf\u00e9\n\x1b[2J")
    clock.advance(0.1)
    assert terminal.getvalue() == (
        "\r\x1b[Krunning  0:00\r\x1b[Kdeferpost: caf?  [2J\n\r\x1b[Krunning  0:00"
    )
    screen.clear()


def test_quiet() -> None:
    """Who wants to hear nothing hears errors."""
    clock, terminal = Clock(), Terminal()
    screen = Screen(terminal, clock, {"TERM": "xterm"}, quiet=True)
    screen.show(lambda: Following("running", 0.0))
    screen.say("something")
    screen.tell("wrong")
    clock.advance(1)
    assert terminal.getvalue() == "deferpost: wrong\n"


def test_a_terminal_that_goes_away() -> None:
    """A terminal that was closed is no end of the work."""
    clock, terminal = Clock(), Terminal()
    screen = Screen(terminal, clock, {"TERM": "xterm"}, quiet=False)
    screen.show(lambda: Following("running", 0.0))
    terminal.is_gone = True
    screen.say("something")
    assert not screen.is_live
    assert not clock.getDelayedCalls()
    screen.clear()
