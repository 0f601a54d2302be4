"""The computing job in a process that does nothing else: ``python -m bench.clients.bare STEPS
SECONDS`` prints how many were done and in how many seconds, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

from bench.jobs import burn

__all__ = ["burn_for", "main"]


def burn_for(steps: int, seconds: float) -> tuple[int, float]:
    """Compute for a time; returns how many jobs were done, and in how many seconds."""
    burn(steps)
    began, done = time.perf_counter(), 0
    while (now := time.perf_counter()) - began < seconds:
        burn(steps)
        done += 1
    return done, now - began


def main() -> None:
    """Compute, and print the figures."""
    print(json.dumps(burn_for(int(sys.argv[1]), float(sys.argv[2]))))


if __name__ == "__main__":
    main()
