"""Kept jobs over HTTP: the list of them, each with its result and its events, and its end.

:mod:`.resources` has what is at each path, and :mod:`.parts` what that has in common.
:mod:`.document` says what a job looks like, :mod:`.addresses` where it is, :mod:`.listing` what a
list is asked for, :mod:`.ranges` which part of a result is wanted, and :mod:`.visitors` who sees
which jobs; these decide only.  :mod:`.replying` answers later than it was asked, :mod:`.result`
sends results, :mod:`.feed` events, and :mod:`.page` the page for people.
"""

from __future__ import annotations

from deferpost.web.jobs.addresses import base_of, mount_of
from deferpost.web.jobs.document import job_document, url_of
from deferpost.web.jobs.parts import JobsContext, is_job_id
from deferpost.web.jobs.resources import JOBS, JobTree

__all__ = [
    "JOBS",
    "JobTree",
    "JobsContext",
    "base_of",
    "is_job_id",
    "job_document",
    "mount_of",
    "url_of",
]
