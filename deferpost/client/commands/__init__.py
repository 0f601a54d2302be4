"""The commands of the client: ``deferpost post`` and the others.

``main`` is where they begin.  ``line`` reads the command line; ``performing`` does what it says,
for which ``acts`` has a function for each command; ``running`` has the reactor and the signals, and
``endings`` the exit statuses.  ``watching`` follows a job, ``screen`` and ``bar`` show how far it
is, ``words`` says things to people, and ``output`` is where results go.
"""

from __future__ import annotations

__all__ = ["NAMES"]

#: The first words by which ``deferpost`` is a client.
NAMES = ("post", "jobs", "wait", "events", "result", "cancel")
