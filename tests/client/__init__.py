"""Tests of the client and of its commands."""
