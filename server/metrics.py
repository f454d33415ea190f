"""`/metrics` in Prometheus' text format, made from plain counters when it is asked for.

Requests pay for an integer each (server/lane/measures.py); prometheus-client is imported with the
first scrape. Labels are operations, methods and statuses, all of them from the specs: nothing that
a client sends becomes a label (security 62).
"""

import hmac
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from server.lane.contract import Contract
from server.lane.measures import BUCKETS_S
from server.pages import TEXT, Check, Headers, Page, page

if TYPE_CHECKING:
    from prometheus_client.core import Metric

TYPE = b"text/plain; version=0.0.4; charset=utf-8"
Gauges = Mapping[str, tuple[str, Callable[[], float]]]
"""Name → (help, the value now)."""


def metrics_page(
    contracts: Mapping[str, Contract], *, gauges: Gauges, check: Check, token: str = ""
) -> ASGIApp:
    """The page. With a `token`, it is shown only to who sends it as a bearer.

    `check` returns when the database answers and raises when it does not.
    """
    collector = _Collector(contracts, gauges)
    render: Callable[[], bytes] | None = None

    async def answer(headers: Headers) -> Page:
        nonlocal render
        if token and not _allowed(headers.get(b"authorization", b""), token):
            challenge = (b"www-authenticate", b'Bearer realm="metrics"')
            return Page(401, TEXT, b"a token is needed\n", (challenge,))
        try:
            await check()
            collector.database_up = 1
        except Exception:
            collector.database_up = 0
        if render is None:
            render = _renderer(collector)
        return Page(200, TYPE, render())

    return page(answer)


def _allowed(given: bytes, token: str) -> bool:
    scheme, _, sent = given.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(sent.strip(), token.encode())


def _renderer(collector: "_Collector") -> Callable[[], bytes]:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return lambda: generate_latest(registry)


class _Collector:
    """Reads the counters of every operation, and what the process has used."""

    def __init__(self, contracts: Mapping[str, Contract], gauges: Gauges) -> None:
        self._contracts = contracts
        self._gauges = gauges
        self.database_up = 0

    def collect(self) -> Iterator["Metric"]:
        yield from self._requests()
        yield from self._process()

    def describe(self) -> list[Any]:
        """Registering asks for names; ours are no one else's."""
        return []

    def _requests(self) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        answered = CounterMetricFamily(
            "quartet_requests",
            "Requests answered; 499 where the client left before.",
            labels=("contract", "operation", "method", "status"),
        )
        seconds = HistogramMetricFamily(
            "quartet_request_seconds",
            "Seconds from a request's headers to its answer's end.",
            labels=("contract", "operation", "method"),
        )
        for contract in self._contracts.values():
            for operation in contract.operations.values():
                measures = operation.measures
                if not measures.statuses:
                    continue
                names = (contract.name, operation.operation_id, operation.method)
                for status, count in sorted(measures.statuses.items()):
                    answered.add_metric((*names, str(status)), count)
                seconds.add_metric(names, _cumulative(measures.buckets), measures.seconds)
        yield answered
        yield seconds

    def _process(self) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        used = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "process_cpu_seconds",
            "CPU time of the process, user and system.",
            value=used.ru_utime + used.ru_stime,
        )
        for name, text, value in (
            ("process_resident_memory_bytes", "Resident memory.", _resident()),
            ("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd"))),
            ("process_start_time_seconds", "Start, UTC seconds since the epoch.", STARTED),
            ("quartet_database_up", "Whether the database answered just now.", self.database_up),
            *((name, text, read()) for name, (text, read) in self._gauges.items()),
        ):
            yield GaugeMetricFamily(name, text, value=value)


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    """Prometheus' buckets count everything up to their bound."""
    buckets, total = [], 0
    for bound, count in zip((*(str(bound) for bound in BUCKETS_S), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _resident() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def _started() -> float:
    """When the kernel started this process."""
    with open("/proc/self/stat", "rb") as stat:
        ticks = int(stat.read().rpartition(b")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


STARTED = _started()
