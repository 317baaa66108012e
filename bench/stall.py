"""What clients of the master notice of a backup: nothing, SAVE's and ours.

    python3 bench/stall.py --keys 1000000 --rounds 5

A master and a replica on this machine, a writer, and a client that asks the master a thousand
times a second by the clock (see prober.py). In each round: a pause, the classic ``SAVE``, a backup
of ours that the master itself makes, and one that the replica makes. A backup lasts until its
receipt is in, so walk, compression, upload and the backup server's verification share the cores
with the master.

Prints a table and the line ``ratio stall X``: the worst latency while the master makes a backup, by
the worst during SAVE, medians of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "roles" / "redis_backup_tool" / "files")]

from tests.tool import backup_lab  # noqa: E402  # the line above finds it

RATE = 1000.0
WRITES = 2000.0
PAUSE = 3.0  # seconds
IDLE, CLASSIC, MASTER, REPLICA = "no backup", "SAVE", "ours on the master", "ours on the replica"
WAYS = (IDLE, CLASSIC, MASTER, REPLICA)


@dataclass(frozen=True)
class Window:
    """What clients saw meanwhile: latencies in seconds, sorted; `fork` is the server's own figure
    for its last fork, None where the master did not fork.
    """

    seconds: float
    latencies: list[float]
    fork: float | None

    def quantile(self, part: float) -> float:
        """The latency that this part of the requests stayed below."""
        return self.latencies[min(len(self.latencies) - 1, int(part * len(self.latencies)))]

    @property
    def worst(self) -> float:
        """The longest."""
        return self.latencies[-1]


Round = dict[str, Window]


@contextlib.contextmanager
def client(port: int, *arguments: str) -> Iterator[Callable[[], list[list[float]]]]:
    """A prober in a process of its own, which is connected; what it gives is asked once, and ends
    it.
    """
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "bench" / "prober.py"), str(port), *arguments],
        env={**os.environ, "PASSWORD": backup_lab.PASSWORD},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def ended() -> list[list[float]]:
        out, _ = process.communicate()
        if process.returncode:
            raise RuntimeError("the prober failed")
        found: list[list[float]] = json.loads(out)
        return found

    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the prober could not connect")
        yield ended
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def fill(server: backup_lab.RedisProcess, keys: int) -> None:
    """So many sessions of about 200 bytes."""
    with server.client() as connection, connection.pipeline(transaction=False) as pipe:
        for number in range(keys):
            pipe.set(f"session:{number}", f"{number:0200d}")
            if number % 10000 == 9999:
                pipe.execute()
        pipe.execute()


class Stage:
    """A set of two under load."""

    def __init__(self, made: backup_lab.Lab, keys: int, save_delay: int) -> None:
        ports = {name: backup_lab.free_port() for name in ("redis-1", "redis-2")}
        # For SAVE and BGSAVE alike: makes a small dataset as slow as a big one.
        delay = str(save_delay)
        self.keys = keys
        self.master = made.redis("redis-1", port=ports["redis-1"], rdb_key_save_delay=delay)
        fill(self.master, keys)
        self.replica = made.redis(
            "redis-2",
            port=ports["redis-2"],
            replicaof=f"127.0.0.1 {ports['redis-1']}",
            rdb_key_save_delay=delay,
        )
        hosts = [
            {"name": name, "address": "127.0.0.1", "port": port} for name, port in ports.items()
        ]
        self.configs = {
            way: made.host_config(name, server, hosts=hosts, receipt_timeout_seconds=300)
            for way, name, server in (
                (MASTER, "redis-1", self.master),
                (REPLICA, "redis-2", self.replica),
            )
        }
        with self.replica.client() as connection:
            backup_lab.wait_until(
                lambda: connection.info("replication")["master_link_status"] == "up",
                "the replica",
                300,
            )

    def act(self, way: str) -> None:
        """One backup, or none for a while."""
        if way == IDLE:
            time.sleep(PAUSE)
        elif way == CLASSIC:
            with self.master.client() as connection:
                connection.save()
        else:
            done = backup_lab.run_process("create", "--now", "--config", self.configs[way])
            if done.code:
                raise RuntimeError(f"redis-backup failed: {done.text[-2000:]}")

    def round(self) -> Round:
        """All ways, one after the other."""
        times: dict[str, tuple[float, float]] = {}
        forks: dict[str, float] = {}
        with (
            client(self.master.port, str(RATE)) as probed,
            client(self.master.port, str(WRITES), "--write", str(self.keys)),
        ):
            for way in WAYS:
                time.sleep(1)
                began = time.monotonic()
                self.act(way)
                times[way] = began, time.monotonic()
                if way == MASTER:
                    with self.master.client() as connection:
                        forks[way] = connection.info("stats")["latest_fork_usec"] / 1e6
            time.sleep(0.5)
            found = probed()
        return {
            way: Window(
                end - began,
                sorted(latency for meant, latency in found if began <= meant <= end),
                forks.get(way),
            )
            for way, (began, end) in times.items()
        }


def measure(root: Path, keys: int, rounds: int, save_delay: int = 0) -> list[Round]:
    """So many rounds. `save_delay` is microseconds that Redis waits per key when it saves."""
    with backup_lab.lab(root, "redis-1", "redis-2") as made:
        stage = Stage(made, keys, save_delay)
        return [stage.round() for _ in range(rounds)]


def ratio(rounds: list[Round]) -> float:
    """Ours on the master by SAVE: medians of the worst latencies."""
    worst = {
        way: statistics.median(item[way].worst for item in rounds) for way in (MASTER, CLASSIC)
    }
    return worst[MASTER] / worst[CLASSIC]


def report(rounds: list[Round]) -> list[str]:
    """A line per round and way, in milliseconds, and the ratio."""
    rows = ["round  way                   took s     p50     p99   p99.9   worst    fork   (ms)"]
    for number, item in enumerate(rounds, 1):
        for way, window in item.items():
            figures = [window.quantile(part) for part in (0.5, 0.99, 0.999)] + [window.worst]
            cells = "".join(f"{figure * 1000:8.1f}" for figure in figures)
            fork = f"{window.fork * 1000:8.1f}" if window.fork is not None else "       -"
            rows.append(f"{number:<6} {way:<20}{window.seconds:8.2f}{cells}{fork}")
    for way in WAYS:
        worst = [item[way].worst * 1000 for item in rounds]
        rows.append(
            f"worst  {way:<20} median {statistics.median(worst):.1f} ms, of all {max(worst):.1f} ms"
        )
    rows.append(f"ratio stall {ratio(rounds):.3f}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        rounds = measure(Path(directory), arguments.keys, arguments.rounds)
    print("\n".join(report(rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
