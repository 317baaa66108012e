"""A drill against a bare server that loads the same file, on this machine, in one run.

    python3 bench/drill.py --rounds 5

Bare is ``redis-server`` from its start until it has loaded the file. The drill is timed as a whole
(stored file hashed, unpacked, hashed, walked, loaded in a sandbox; for *values* every record
compared with what that server saves again), without what the network takes: the fetch and the
report. Its sandboxed server is a plain process here.

The CPU of the drill is that of the tool and of zstd, without its server's; that of the bare load is
its server's.

Prints a table and the lines ``ratio drill_load X`` and ``ratio drill_values X``, the drill's time
by the bare load's, each the worst of the plain data sets; and ``ratio drill_load_mixed X`` and
``ratio drill_values_mixed X``, the drill's CPU by the bare load's, of some of every type.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "roles" / "redis_backup_tool" / "files")]

from redis_backup.base.output import Output  # noqa: E402
from redis_backup.config import model  # noqa: E402
from redis_backup.config import reader as tool_config  # noqa: E402
from redis_backup.drill import report  # noqa: E402
from redis_backup.drill import run as drill_run  # noqa: E402
from redis_backup.host.server import RedisServer  # noqa: E402
from redis_backup.transport import rsync  # noqa: E402

from bench import cpu, data  # noqa: E402  # the line above finds it
from tests.tool import backup_lab  # noqa: E402
from tests.tool.backup_lab import drill_config  # noqa: E402
from tests.tool.test_drill import repository, store  # noqa: E402

MIB = 2**20
MIXED = "mixed"


class Spent(NamedTuple):
    """What something took, in seconds."""

    seconds: float
    cpu: float


def small_keys(client: redis.Redis, count: int) -> None:
    """Short strings: `key:N` with `value:N`."""
    populate: Any = client.execute_command
    populate("DEBUG", "POPULATE", count)


def written(write: data.Write) -> Callable[[redis.Redis, int], None]:
    """Write so many keys of a kind."""
    return lambda client, count: data.fill(client, write, range(count), 0)


DATA: dict[str, tuple[int, Callable[[redis.Redis, int], None]]] = {
    "small": (5_000_000, small_keys),
    "1 KB": (500_000, written(data.kilobyte)),
    MIXED: (1_000_000, written(data.mixed)),
}


def made(root: Path, name: str, scale: float, compressed: bool) -> tuple[Path, dict[str, str]]:
    """The RDB of a data set, and the settings that a manifest of it has."""
    count, fill = DATA[name]
    server = backup_lab.start_redis(
        root, enable_debug_command="local", rdbcompression="yes" if compressed else "no"
    )
    try:
        with redis.Redis(
            unix_socket_path=str(server.socket), password=backup_lab.PASSWORD, socket_timeout=600
        ) as client:
            fill(client, int(count * scale))
            client.save()
        access = model.RedisAccess("", 0, None, backup_lab.PASSWORD, str(server.socket))
        settings = RedisServer(access).settings()
    finally:
        server.stop()
    return server.data / "dump.rdb", settings


def bare(root: Path, dump: Path) -> Spent:
    """What a server takes from its start until it has loaded the file."""
    root.mkdir()
    (root / "dump.rdb").hardlink_to(dump)
    words = ["redis-server", "--port", "0", "--unixsocket", str(root / "socket")]
    words += ["--dir", str(root), "--save", "", "--logfile", str(root / "log")]
    client = redis.Redis(unix_socket_path=str(root / "socket"), retry=Retry(NoBackoff(), 0))
    began = time.monotonic()
    server = subprocess.Popen(words)
    try:
        while True:
            try:
                client.ping()
            except redis.exceptions.RedisError:
                time.sleep(0.01)
                if server.poll() is not None:
                    raise SystemExit((root / "log").read_text()) from None
            else:
                return Spent(time.monotonic() - began, cpu.of_process(server.pid))
    finally:
        client.close()
        server.kill()
        server.wait()
        shutil.rmtree(root)


class Clock:
    """Seconds that a function of the tool took."""

    def __init__(self, module: Any, *names: str) -> None:
        self.seconds = 0.0
        for name in names:
            setattr(module, name, self._timed(getattr(module, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.monotonic() - began

        return timed


class Watch:
    """What a drill has spent before and after it compares values; its server runs on then."""

    def __init__(self, network: Clock) -> None:
        self._network = network
        self._began = self._cpu = 0.0
        self.load = self.values = Spent(0, 0)
        real = drill_run._Drill._compare_values

        def watched(*arguments: Any) -> None:
            self.load = self._spent()
            real(*arguments)
            self.values = self._spent()

        setattr(drill_run._Drill, "_compare_values", watched)  # noqa: B010 - mypy refuses a method

    def start(self) -> None:
        """From now on."""
        self._network.seconds = 0.0
        self._began, self._cpu = time.monotonic(), cpu.of_self()

    def _spent(self) -> Spent:
        seconds = time.monotonic() - self._began - self._network.seconds
        return Spent(seconds, cpu.of_self() - self._cpu)


def drilled(path: Path, watch: Watch) -> dict[str, Spent]:
    """What a drill takes to the levels *load* and *values*, which it must reach."""
    config = tool_config.load(path)
    if not isinstance(config, model.DrillConfig):
        raise SystemExit(f"{path}: not that of a drill")
    watch.start()
    [outcome] = drill_run.run(config, None, Output(True, io.StringIO(), io.StringIO()))
    if not outcome.passed or outcome.report["level"] != "values":
        raise SystemExit(report.render([outcome]))
    return {"load": watch.load, "values": watch.values}


def settle() -> None:
    """Have the disk take what was written before, at nobody's expense."""
    os.sync()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of keys")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--compressed", action="store_true", help="with rdbcompression yes")
    arguments = parser.parse_args()
    watch = Watch(Clock(rsync, "fetch", "upload"))
    ratios: dict[str, float] = {}
    for name in arguments.data:
        spent: dict[str, list[Spent]] = {"bare": [], "load": [], "values": []}
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            root = Path(directory)
            dump, settings = made(root / "server", name, arguments.scale, arguments.compressed)
            size = dump.stat().st_size
            (root / "lab").mkdir()
            with repository(root / "lab") as lab:
                backup_id = backup_lab.id_now("redis-1")
                store(lab, dump.read_bytes(), backup_id, settings=settings)
                path = drill_config(lab, load_timeout_seconds=3600)
                for _ in range(arguments.rounds):
                    settle()
                    spent["bare"].append(bare(root / "bare", dump))
                    settle()
                    for level, found in drilled(path, watch).items():
                        spent[level].append(found)
        count = int(DATA[name][0] * arguments.scale)
        print(f"{name}: {count} keys, {size / MIB:.1f} MiB, {arguments.rounds} rounds")
        middle = {
            way: Spent(*(statistics.median(column) for column in zip(*all_of, strict=True)))
            for way, all_of in spent.items()
        }
        for way, all_of in spent.items():
            figures = []
            for column in (0, 1):
                value, theirs = middle[way][column], middle["bare"][column]
                every = " ".join(f"{item[column]:.2f}" for item in all_of)
                figures.append(f"{value:6.2f} s {value / theirs:5.2f} x  (all: {every})")
            print(f"  {way:<7} {figures[0]}  CPU {figures[1]}")
        for level in ("load", "values"):
            if name == MIXED:
                ratios[f"{level}_mixed"] = middle[level].cpu / middle["bare"].cpu
            else:
                slower = middle[level].seconds / middle["bare"].seconds
                ratios[level] = max(ratios.get(level, 0.0), slower)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"largest memory of this process, the data among it: {peak:.0f} MiB")
    for level, value in ratios.items():
        print(f"ratio drill_{level} {value:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
