"""A drill against a bare server that loads the same file, on this machine, in one run.

    python3 bench/drill.py --rounds 5

Bare is ``redis-server`` from its start until it has loaded the file. The drill is timed as a whole
(stored file hashed, unpacked, hashed, walked, loaded in a sandbox; for *values* every value
compared with what that server saves again), without what the network takes: the fetch and the
report. Its sandboxed server is a plain process here.

Prints a table and the lines ``ratio drill_load X`` and ``ratio drill_values X``: the drill's time
by the bare load's, each the worst of the data sets.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "roles" / "redis_backup_tool" / "files")]

from redis_backup.base.output import Output  # noqa: E402
from redis_backup.config import model  # noqa: E402
from redis_backup.config import reader as tool_config  # noqa: E402  # the line above finds it
from redis_backup.drill import report  # noqa: E402
from redis_backup.drill import run as drill_run  # noqa: E402
from redis_backup.transport import rsync  # noqa: E402

from tests.tool import backup_lab  # noqa: E402
from tests.tool.backup_lab import drill_config  # noqa: E402
from tests.tool.test_drill import repository, store  # noqa: E402

MIB = 2**20


def small_keys(client: redis.Redis, count: int) -> None:
    """Short strings: `key:N` with `value:N`."""
    populate: Any = client.execute_command
    populate("DEBUG", "POPULATE", count)


def kilobytes(client: redis.Redis, count: int) -> None:
    """Values of 1 KB: JSON of which a half does not compress."""
    chance = random.Random(0)
    with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            value = b'{"id":%d,"token":"%s","cart":[%s]}' % (
                number,
                chance.randbytes(350).hex().encode(),
                b'{"item":1,"price":10},' * 14,
            )
            pipe.set(b"session:%d" % number, value[:1024])
            if number % 2000 == 1999:
                pipe.execute()
        pipe.execute()


DATA: dict[str, tuple[int, Callable[[redis.Redis, int], None]]] = {
    "small": (5_000_000, small_keys),
    "1 KB": (500_000, kilobytes),
}


def made(root: Path, name: str, scale: float, compressed: bool) -> Path:
    """The RDB of a data set."""
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
    finally:
        server.stop()
    return server.data / "dump.rdb"


def bare(root: Path, dump: Path) -> float:
    """Seconds that a server takes from its start until it has loaded the file."""
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
                return time.monotonic() - began
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


def drilled(path: Path, level: str, network: Clock) -> float:
    """Seconds that a drill takes, which must reach that level."""
    config = tool_config.load(path)
    if not isinstance(config, model.DrillConfig):
        raise SystemExit(f"{path}: not that of a drill")
    network.seconds = 0.0
    began = time.monotonic()
    [outcome] = drill_run.run(config, None, Output(True, io.StringIO(), io.StringIO()))
    seconds = time.monotonic() - began - network.seconds
    if not outcome.passed or outcome.report["level"] != level:
        raise SystemExit(report.render([outcome]))
    return seconds


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
    network = Clock(rsync, "fetch", "upload")
    worst = {"load": 0.0, "values": 0.0}
    for name in arguments.data:
        seconds: dict[str, list[float]] = {"bare": [], "load": [], "values": []}
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            root = Path(directory)
            dump = made(root / "server", name, arguments.scale, arguments.compressed)
            content = dump.read_bytes()
            labs = {level: root / level for level in worst}
            for place in labs.values():
                place.mkdir()
            with repository(labs["load"]) as load, repository(labs["values"]) as values:
                store(load, content, backup_lab.id_now("redis-1"), digest=None)
                store(values, content, backup_lab.id_now("redis-1"))
                configs = {"load": drill_config(load), "values": drill_config(values)}
                for _ in range(arguments.rounds):
                    settle()
                    seconds["bare"].append(bare(root / "bare", dump))
                    for level, path in configs.items():
                        settle()
                        seconds[level].append(drilled(path, level, network))
        middle = {way: statistics.median(times) for way, times in seconds.items()}
        count = int(DATA[name][0] * arguments.scale)
        print(f"{name}: {count} keys, {len(content) / MIB:.1f} MiB, {arguments.rounds} rounds")
        for way, times in seconds.items():
            every = " ".join(f"{value:.2f}" for value in times)
            factor = middle[way] / middle["bare"]
            print(f"  {way:<8} {middle[way]:6.2f} s  {factor:4.2f} x  (all: {every})")
        for level in worst:
            worst[level] = max(worst[level], middle[level] / middle["bare"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"largest memory of this process, the data among it: {peak:.0f} MiB")
    for level, value in worst.items():
        print(f"ratio drill_{level} {value:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
