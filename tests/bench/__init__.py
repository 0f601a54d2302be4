"""Tests of the benchmark: what it computes, reads and prints, and its load on a small server."""
