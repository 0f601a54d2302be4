"""The commands of the client: ``deferpost post`` and the others.

``line`` reads the command line, ``main`` does what it says, ``acts`` has a function for each
command.  ``watching`` follows a job, ``screen`` and ``bar`` show how far it is, ``words`` says
things to people, ``output`` is where results go, ``endings`` has the exit statuses, and ``running``
the reactor and the signals.
"""

from __future__ import annotations

__all__ = ["NAMES"]

#: The first words by which ``deferpost`` is a client.
NAMES = ("post", "jobs", "wait", "events", "result", "cancel")
