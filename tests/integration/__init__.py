"""Tests with real processes, sockets and installations."""
