"""The behaviour suite of stores, run against every store there is."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from deferpost.store.memory import MemoryStore
from deferpost.store.sqlite import SQLiteStore
from deferpost.testing.stores import LastingBehaviour, StoreBehaviour


class SQLiteStoreTests(StoreBehaviour, LastingBehaviour, TestCase):
    """The one on disk."""

    reactor = reactor

    def make_store(self) -> SQLiteStore:
        """See :class:`StoreSuite`."""
        return SQLiteStore(self.folder / "store", self.reactor, now=self.now)


class QuickSQLiteStoreTests(StoreBehaviour, LastingBehaviour, TestCase):
    """The one on disk, which does not wait for it."""

    reactor = reactor

    def make_store(self) -> SQLiteStore:
        """See :class:`StoreSuite`."""
        return SQLiteStore(self.folder / "store", self.reactor, now=self.now, durable=False)


class MemoryStoreTests(StoreBehaviour, TestCase):
    """The one in memory."""

    reactor = reactor

    def make_store(self) -> MemoryStore:
        """See :class:`StoreSuite`."""
        return MemoryStore(self.reactor, now=self.now)
