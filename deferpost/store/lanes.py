"""Threads that do what the reactor must not, and the way of their answers back to it.

A lane is one queue with one or several threads; they do what they are given and know nothing of it.
Waking the reactor is a system call, and a turn of it costs more than most answers: so these are
collected, and one wake-up serves for all that there are by the time the reactor turns.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

__all__ = ["Answers", "Lane", "Said"]

_log = Logger(namespace="deferpost.store")

#: How many answers are given in one turn of the reactor; the others wait for the next.
_AT_ONCE = 256

#: Told, on the reactor thread, what something gave; or, with True, the error that it raised.
Said = Callable[[Any, bool], None]


class Answers:
    """What the threads of a store have to say to the reactor, in the order in which they say it.

    No more waits here than the threads were asked for.

    :param reactor: which is woken (:class:`IReactorFromThreads` and :class:`IReactorTime`).
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._posted: deque[tuple[Said, Any, bool]] = deque()
        self._waking = False

    def post(self, said: Said, value: Any, failed: bool = False) -> None:
        """Have ``said`` called on the reactor thread.  On any thread.

        :param said: is told.
        :param value: what it is told.
        :param failed: whether that is an error.
        """
        self._posted.append((said, value, failed))
        self.wake()

    def post_all(self, answers: list[tuple[Said, Any, bool]]) -> None:
        """As :meth:`post`, for many at once."""
        self._posted.extend(answers)
        self.wake()

    def wake(self) -> None:
        """Wake the reactor, unless it is about to look."""
        if not self._waking:
            self._waking = True
            self._reactor.callFromThread(self._give)

    def _give(self) -> None:
        take = self._posted.popleft
        for _ in range(_AT_ONCE):
            try:
                said, value, failed = take()
            except IndexError:
                # Until here threads have posted without a wake-up; look once more after this.
                self._waking = False
                if not self._posted:
                    return
                continue
            try:
                said(value, failed)
            except Exception:  # a defect of one who was answered, which is to stop no other answer
                _log.failure("what follows from an answer of the store has failed")
        self._reactor.callLater(0, self._give)


class Lane:
    """A queue of things to do, and the threads that do them.

    What bounds the queue is who fills it: see :class:`deferpost.store.sqlite.SQLiteStore`.

    :param name: of the threads, for people.
    :param answers: the way back.
    :param translate: what is told of an error.
    :param threads: how many; with one, things are done in order.
    """

    def __init__(
        self,
        name: str,
        answers: Answers,
        translate: Callable[[BaseException], BaseException],
        threads: int = 1,
    ) -> None:
        self._answers = answers
        self._translate = translate
        self._queue: SimpleQueue[tuple[Callable[[], Any], Said] | None] = SimpleQueue()
        self._living = threads
        self._ended: Deferred[None] = Deferred()
        self._threads = [
            threading.Thread(target=self._live, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, work: Callable[[], Any], said: Said) -> None:
        """Have something done.  On any thread.

        :param work: is called on a thread of the lane.
        :param said: is told on the reactor thread what came of it.
        """
        self._queue.put((work, said))

    def stop(self) -> Deferred[None]:
        """End, when all that was put here is done.  On the reactor thread, once.

        :returns: a Deferred that fires when no thread does anything any more.
        """
        for _ in self._threads:
            self._queue.put(None)
        return self._ended

    def _live(self) -> None:
        while (task := self._queue.get()) is not None:
            work, said = task
            try:
                value, failed = work(), False
            except Exception as error:
                value, failed = self._translate(error), True
            self._answers.post(said, value, failed)
            # Hold on to nothing, a file for example, until the next one comes.
            del task, work, said, value
        self._answers.post(self._thread_ended, None)

    def _thread_ended(self, _: object, failed: bool) -> None:
        self._living -= 1
        if not self._living:
            self._ended.callback(None)
