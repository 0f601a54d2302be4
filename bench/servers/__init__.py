"""Ours, as they are measured: what the daemon serves, and the same in a stock Site."""
