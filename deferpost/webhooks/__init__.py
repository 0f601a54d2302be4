"""Webhooks: whom jobs may tell of their end, and how one such notification is sent.

When one is due, and what becomes of its job's record, is for others.
"""
