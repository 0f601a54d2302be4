"""Measures: ``python -m bench`` starts each server in turn, interleaved, and prints a table."""
