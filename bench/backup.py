"""One backup: the classic script, ours and restic, on the same server in one run.

    python3 bench/backup.py --rounds 3

Classic is what a crontab has: ``SAVE``, ``cp`` to a name with the date, ``rsync -avz`` of it. Ours
is ``redis-backup create --now``: BGSAVE, a walk over every record, compression, upload, the whole
verified again by the backup server, and its receipt. restic backs up the file that SAVE wrote.
Between rounds one key of a hundred is written anew. Everything goes over loopback, through a relay
that counts; restic writes its repository beside it, and what that grows by counts as sent. CPU is
that of the Redis host: of the server that saves and of the programs there, without what the backup
server does.

Prints a table for each data set and the lines ``ratio bytes_sent X``, ``ratio backup_seconds X``
and ``ratio create_cpu X``, ours by classic, each the worst of the data sets.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "roles" / "redis_backup_tool" / "files")]

from bench import cpu, data  # noqa: E402  # the line above finds it
from bench.relay import Relay, relay  # noqa: E402
from tests.tool import backup_lab  # noqa: E402

MIB = 2**20
DATA: dict[str, tuple[int, data.Write]] = {
    "sessions": (500_000, data.session),
    "mixed": (1_000_000, data.mixed),
}


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def run(words: list[str], **environment: str) -> None:
    """Run a program, which must succeed."""
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{words[0]} failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")


class Contest:
    """The three ways on one server."""

    def __init__(self, root: Path, lab: backup_lab.Lab, counter: Relay) -> None:
        self.root, self.lab, self.counter = root, lab, counter
        # Debian's stock file has save points; the measured server saves only when it is told to.
        self.server = lab.redis("redis-1", save="")
        self.config = lab.host_config(
            "redis-1",
            self.server,
            transport={"port": counter.port},
            receipt_timeout_seconds=600,
            bgsave_timeout_seconds=600,
        )
        self.archive = root / "classic"
        self.archive.mkdir()
        self.repository = root / "restic"
        module = f"[dbm]\npath = {self.archive}\nread only = no\n"
        with (lab.server.root / "rsyncd.conf").open("a") as config:
            config.write(module)
        self.secret = root / "restic-password"
        self.secret.write_text("bench\n")
        self._restic("init")

    def _restic(self, *words: str) -> None:
        run(
            ["restic", "--quiet", "--no-cache", *words],
            RESTIC_REPOSITORY=str(self.repository),
            RESTIC_PASSWORD_FILE=str(self.secret),
        )

    def classic(self, number: int) -> int:
        """SAVE, cp, rsync -avz."""
        with self.server.client() as client:
            client.save()
        copy = self.server.data / f"dump_{number}.rdb"
        run(["cp", str(self.server.data / "dump.rdb"), str(copy)])
        self.counter.reset()
        run(["rsync", "-avz", str(copy), f"rsync://127.0.0.1:{self.counter.port}/dbm/"])
        return self.counter.sent

    def ours(self, _: int) -> int:
        """redis-backup create --now, until the receipt is in."""
        self.counter.reset()
        done = backup_lab.run_process("create", "--now", "--json", "--config", self.config)
        if done.code:
            raise SystemExit(f"redis-backup failed: {done.text[-2000:]}")
        return self.counter.sent

    def restic(self, _: int) -> int:
        """What restic adds for the file that SAVE wrote."""
        before = size_of(self.repository)
        self._restic("backup", str(self.server.data / "dump.rdb"))
        return size_of(self.repository) - before


class Round(NamedTuple):
    """What one backup took: seconds, CPU seconds of the Redis host, and bytes sent."""

    seconds: float
    cpu: float
    sent: int


def contest_of(write: data.Write, keys: int, rounds: int) -> tuple[dict[str, list[Round]], int]:
    """All rounds of each way with a data set, and the size of its RDB."""
    found: dict[str, list[Round]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        root = Path(directory)
        with backup_lab.lab(root, "redis-1") as lab, relay(lab.server.port) as counter:
            contest = Contest(root, lab, counter)
            with contest.server.client() as client:
                data.fill(client, write, range(keys), 0)
                ways = {"classic": contest.classic, "ours": contest.ours, "restic": contest.restic}
                for number in range(rounds):
                    for name, way in ways.items():
                        os.sync()
                        pid = contest.server.process.pid
                        used = -cpu.of_children() - cpu.of_process(pid)
                        began = time.monotonic()
                        sent = way(number)
                        seconds = time.monotonic() - began
                        used += cpu.of_children() + cpu.of_process(pid)
                        found.setdefault(name, []).append(Round(seconds, used, sent))
                    changed = random.Random(number).sample(range(keys), keys // 100)
                    data.fill(client, write, changed, number + 1)
            return found, (contest.server.data / "dump.rdb").stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of keys")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    arguments = parser.parse_args()
    if shutil.which("restic") is None:
        raise SystemExit("restic is needed: apt-get install restic")
    ratios = {"bytes_sent": 0.0, "backup_seconds": 0.0, "create_cpu": 0.0}
    for title in arguments.data:
        count, write = DATA[title]
        keys = int(count * arguments.scale)
        found, size = contest_of(write, keys, arguments.rounds)
        print(f"{title}: {keys} keys, {size / MIB:.1f} MiB dump.rdb, {arguments.rounds} rounds")
        middle = {
            name: Round(*(statistics.median(column) for column in zip(*rounds, strict=True)))
            for name, rounds in found.items()
        }
        for name, rounds in found.items():
            print(
                f"  {name:<8} {middle[name].seconds:6.2f} s (all: "
                + " ".join(f"{item.seconds:.2f}" for item in rounds)
                + f"), CPU {middle[name].cpu:6.2f} s (all: "
                + " ".join(f"{item.cpu:.2f}" for item in rounds)
                + f"), {middle[name].sent / MIB:7.1f} MiB sent"
            )
        ours, classic = middle["ours"], middle["classic"]
        for ratio, value in (
            ("bytes_sent", ours.sent / classic.sent),
            ("backup_seconds", ours.seconds / classic.seconds),
            ("create_cpu", ours.cpu / classic.cpu),
        ):
            ratios[ratio] = max(ratios[ratio], value)
    for ratio, value in ratios.items():
        print(f"ratio {ratio} {value:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
