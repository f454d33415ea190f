"""The event log by itself: CPU per event and the time from a push to its follower.

    .venv/bin/python scripts/benchmarks/events.py [--database-url URL] [--streams 200] [--rate 20]
        [--seconds 10] [--no-followers]

Each stream has one writer, which pushes `rate` events a second, and one follower. The clients'
own pacing loop is measured without the log first and its CPU is taken off.
"""

import argparse
import asyncio
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from storage.events import Event, EventLog, Follower, Writer
from storage.migrating import migrate
from storage.opening import open_database
from storage.wakeups import OneProcess, Polling

PAYLOAD = b'{"role":"assistant","content":"t1234 ","message_id":"0190f1c2-7d7a-7000-8000"}'


def cpu() -> float:
    """Seconds of CPU of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Pacer:
    """Pushes `rate` events a second to each of many writers, spread evenly in time."""

    def __init__(self, streams: int, rate: float, seconds: float) -> None:
        self.streams, self.rate, self.seconds = streams, rate, seconds
        self.pushed = 0

    async def run(self, writers: list[Writer] | None) -> None:
        order = list(range(self.streams))
        random.Random(1).shuffle(order)
        interval = 1 / (self.rate * self.streams)
        began = time.perf_counter()
        total = max(1, round(self.seconds * self.rate)) * self.streams
        while self.pushed < total:
            due = min(total, int((time.perf_counter() - began) / interval) + 1)
            while self.pushed < due:
                event = Event("text", PAYLOAD, True)
                if writers is not None:
                    writers[order[self.pushed % self.streams]].push(event)
                self.pushed += 1
            await asyncio.sleep(0.001)


async def follow(follower: Follower, expected: int, delays: list[float]) -> None:
    got = 0
    async for records in follower:
        now = time.time()
        delays.extend(now - record.at for record in records)
        got += len(records)
        if got >= expected:
            await follower.aclose()


async def measure(arguments: argparse.Namespace, url: str, data: Path) -> None:
    await migrate(url, data)
    database = await open_database(url, data)
    log = EventLog(database, Polling() if url else OneProcess())
    streams, rate, seconds = arguments.streams, arguments.rate, arguments.seconds
    names = [f"run:bench-{time.time_ns()}-{number}" for number in range(streams)]

    used = cpu()
    await Pacer(streams, rate, seconds / 3).run(None)
    pacing = (cpu() - used) * 3

    delays: list[float] = []
    each = max(1, round(seconds * rate))
    followers = []
    if not arguments.no_followers:
        followers = [asyncio.create_task(follow(log.follow(name), each, delays)) for name in names]
        await asyncio.sleep(0.5)
    writers = [log.writer(name) for name in names]
    pacer = Pacer(streams, rate, seconds)
    used, began = cpu(), time.perf_counter()
    await pacer.run(writers)
    await asyncio.gather(*(writer.flush() for writer in writers))
    await asyncio.gather(*followers)
    took, used = time.perf_counter() - began, cpu() - used
    stored = sum(await asyncio.gather(*(log.head(name) for name in names)))
    if stored != pacer.pushed or (followers and len(delays) != pacer.pushed):
        sys.exit(f"pushed {pacer.pushed}, stored {stored}, followed {len(delays)}")
    own = used - pacing
    print(
        f"{database.dialect}: {pacer.pushed / took:,.0f} events/s, "
        f"{own / pacer.pushed * 1e6:.1f} µs CPU per event, {own / took:.0%} of a core"
        f" (and {pacing / took:.0%} to push them)",
        end="",
    )
    if delays:
        parts = statistics.quantiles(delays, n=1000)
        print(
            f"; push to follower p50 {parts[499] * 1e3:.1f} ms, p99 {parts[989] * 1e3:.1f} ms,"
            f" max {max(delays) * 1e3:.1f} ms",
            end="",
        )
    print()
    await log.close()
    await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--database-url", default=os.environ.get("DATABASE_URL", ""))
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--no-followers", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        work = measure(arguments, arguments.database_url, Path(data))
        if arguments.profile:
            import cProfile
            import pstats

            profile = cProfile.Profile()
            profile.enable()
            asyncio.run(work)
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(35)
        else:
            asyncio.run(work)


if __name__ == "__main__":
    main()
