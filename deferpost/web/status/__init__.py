"""The status page: pools, workers and jobs as they are now, and buttons for operators.

:mod:`.document` says what the state consists of, :mod:`.overview` collects it, :mod:`.watchers`
sends it while it changes, :mod:`.access` says who may look and act, :mod:`.acts` has what operators
can do, :mod:`.page` puts the page together, and :mod:`.resources` has what is at each path.
"""

from __future__ import annotations

from deferpost.web.status.access import Access, Looking
from deferpost.web.status.overview import Overseen, Overview
from deferpost.web.status.resources import PREFIX, StatusPage

__all__ = ["PREFIX", "Access", "Looking", "Overseen", "Overview", "StatusPage"]
