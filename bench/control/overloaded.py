"""What ``bench.control.overload`` has the daemon serve: work of a known duration."""

from __future__ import annotations

import os
import time

from deferpost import App, Call

app = App()

_SECONDS = float(os.environ.get("BENCH_SECONDS", "0.05"))


@app.post("/work", pool="process", timeout="1m")
def work(call: Call) -> str:
    """Take so long, note that it has run, and give back what was sent."""
    name = call.body.read().decode()
    time.sleep(_SECONDS)
    ran = os.environ.get("BENCH_RAN")
    if ran:  # each line is one write, which two processes do not mix
        descriptor = os.open(ran, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, f"{name}\n".encode())
        finally:
            os.close(descriptor)
    return name
