"""A site with jobs, and clients of it that do not wait long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted

from deferpost.client import Client, Retries
from tests.client.site import JobSite

#: Tries again as usual, but soon.
QUICK = Retries(first_pause_seconds=0.01, longest_pause_seconds=0.02, patience_seconds=5.0)

MakeClient = Callable[..., Client]


@pytest_twisted.async_yield_fixture
async def site() -> AsyncIterator[JobSite]:
    """A site that listens."""
    from twisted.internet import reactor

    made = JobSite()
    made.listen(reactor)
    yield made
    await made.port.stopListening()
    for job in made.jobs.values():
        job.drop_readers()


@pytest.fixture
def client(site: JobSite) -> MakeClient:
    """Makes clients of the site."""

    def make(**given: Any) -> Client:
        return Client(given.pop("base_url", site.url), **{"retries": QUICK, **given})

    return make
