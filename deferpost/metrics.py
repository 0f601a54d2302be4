"""The daemon's figures in the words of Prometheus.

Decides the names and labels of metrics, and in which exposition format they are written; the only
module that knows prometheus_client.  It counts nothing itself and asks no pool: it is given a
:class:`Scrape`, all of whose parts are values, so that it can write on any thread.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from deferpost._version import __version__
from deferpost.model import PoolStatus, WorkerStatus
from deferpost.tally import SECONDS, SIZES, Counted, Histogram, TallySnapshot

__all__ = ["PoolScrape", "Scrape", "encoder_of", "exposition"]

#: Stages of a worker, so that a stage without workers is shown as 0.
_STAGES = ("starting", "idle", "busy", "leaving")

#: What is written for whom: versions that a client can make up are not among them.
_CONTENT_TYPE = re.compile(
    r"(text/plain|application/openmetrics-text); version=(0\.0\.4|1\.0\.0|2\.0\.0); charset=utf-8"
    r"(; escaping=[a-z0-9-]+)?"
)


class PoolScrape(msgspec.Struct, frozen=True):
    """A pool at one moment.

    :ivar status: of the pool.
    :ivar workers: its workers; None where it does not let itself be looked into.
    """

    status: PoolStatus
    workers: list[WorkerStatus] | None


class Scrape(msgspec.Struct, frozen=True, kw_only=True):
    """All that is shown, at one moment.

    :ivar tally: what was counted.
    :ivar pools: the pools, each name once.
    :ivar connections: how many connections are open.
    :ivar accepting: whether calls are accepted.
    """

    tally: TallySnapshot
    pools: list[PoolScrape]
    connections: int
    accepting: bool


#: Writes what is collected as bytes.
Encoder = Callable[[Collector], bytes]


def encoder_of(accept: str) -> tuple[Encoder, str]:
    """What writes the format that a client asks for, and its content type.

    :param accept: the value of ``Accept``; of what is not understood, the plain text format is
        what is left.
    """
    try:
        encoder, content_type = choose_encoder(accept)
    except TypeError:  # a version that is not a number cannot be compared
        return choose_encoder("")
    return (encoder, content_type) if _CONTENT_TYPE.fullmatch(content_type) else choose_encoder("")


def exposition(scrape: Scrape, encoder: Encoder) -> bytes:
    """Write the metrics.  On any thread: some thousand series take tens of milliseconds.

    :param scrape: what is shown.
    :param encoder: of :func:`encoder_of`.
    """
    return encoder(_Families(scrape))


class _Families(Collector):
    """A moment's metrics, for one exposition."""

    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterator[Metric]:
        """The families."""
        scrape = self._scrape
        tally = scrape.tally
        yield InfoMetricFamily(
            "deferpost_build",
            "The version that runs, and of what runs it.",
            {"version": __version__, "python": platform.python_version()},
        )
        yield GaugeMetricFamily(
            "deferpost_accepting", "Whether calls are accepted: 1 or 0.", scrape.accepting
        )
        yield GaugeMetricFamily(
            "deferpost_open_connections", "Connections that are open.", scrape.connections
        )
        yield _counted("deferpost_requests", "Calls whose job is over.", tally.requests)
        yield _counted(
            "deferpost_rejections", "Calls that were turned away, without a job.", tally.refusals
        )
        yield _histograms("deferpost_queue_seconds", "How long jobs waited.", SECONDS, tally.queue)
        yield _histograms("deferpost_run_seconds", "How long jobs ran.", SECONDS, tally.run)
        yield _histograms("deferpost_request_bytes", "Sizes of request bodies.", SIZES, tally.size)
        rungs = CounterMetricFamily(
            "deferpost_cancel_rung",
            "Jobs that were canceled, by the last rung of the ladder that it took.",
            labels=["rung"],
        )
        for rung, count in tally.rungs.items():
            rungs.add_metric([rung], count)
        yield rungs
        yield from _pools(scrape.pools)
        yield from _PROCESS.collect()


def _counted(name: str, help_text: str, counts: Iterable[Counted]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=["route", "status", "reason"])
    for one in counts:
        family.add_metric([one.route, str(one.status), one.reason], one.count)
    return family


def _histograms(
    name: str, help_text: str, bounds: Sequence[float], histograms: Iterable[Histogram]
) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=["route"])
    names = [*map(floatToGoString, bounds), "+Inf"]
    for one in histograms:
        buckets = list(zip(names, map(float, one.counts), strict=True))
        family.add_metric([one.route], buckets, one.sum)
    return family


def _pools(pools: Sequence[PoolScrape]) -> Iterator[Metric]:
    def gauge(name: str, help_text: str, value: Callable[[PoolScrape], float | None]) -> Metric:
        family = GaugeMetricFamily(f"deferpost_{name}", help_text, labels=["pool"])
        for pool in pools:
            figure = value(pool)
            if figure is not None:
                family.add_metric([pool.status.name], figure)
        return family

    yield gauge("pool_size", "Jobs that it runs at once.", lambda pool: pool.status.size)
    yield gauge("pool_running", "Jobs that run.", lambda pool: pool.status.running)
    yield gauge("pool_waiting", "Jobs that wait.", lambda pool: pool.status.waiting)
    yield gauge("pool_max_waiting", "Jobs that may wait.", lambda pool: pool.status.max_waiting)
    yield gauge(
        "pool_stuck",
        "Jobs that were told to stop and run on.",
        lambda pool: pool.status.stuck,
    )
    yield gauge(
        "pool_ready", "Whether a job would be run now: 1 or 0.", lambda pool: pool.status.ready
    )
    yield gauge(
        "pool_oldest_waiting_seconds",
        "How long the job has waited that waits longest; 0 if none does.",
        lambda pool: pool.status.oldest_waiting or 0.0,
    )
    restarts = CounterMetricFamily(
        "deferpost_worker_restarts", "Workers that were replaced.", labels=["pool"]
    )
    for pool in pools:
        restarts.add_metric([pool.status.name], pool.status.restarts)
    yield restarts
    workers = GaugeMetricFamily(
        "deferpost_pool_workers", "Workers, by what they do.", labels=["pool", "stage"]
    )
    for pool in pools:
        if pool.workers is not None:
            stages = [worker.stage for worker in pool.workers]
            for stage in _STAGES:
                workers.add_metric([pool.status.name, stage], stages.count(stage))
    yield workers
    yield gauge(
        "pool_memory_bytes",
        "Resident memory of its worker processes together.",
        lambda pool: sum(memory) if (memory := _memory(pool)) else None,
    )
    yield gauge(
        "pool_largest_worker_bytes",
        "Resident memory of its largest worker process.",
        lambda pool: max(memory) if (memory := _memory(pool)) else None,
    )


def _memory(pool: PoolScrape) -> list[int]:
    return [worker.memory for worker in pool.workers or () if worker.memory is not None]


#: process_*: CPU time, memory and descriptors of the daemon itself.
_PROCESS = ProcessCollector(registry=None)
