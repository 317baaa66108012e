"""One backup: the classic script, ours and restic, on the same server in one run.

    python3 bench/backup.py --keys 500000 --rounds 3

Classic is what a crontab has: ``SAVE``, ``cp`` to a name with the date, ``rsync -avz`` of it. Ours
is ``redis-backup create --now``: BGSAVE, a walk over every record, compression, upload, the whole
verified again by the backup server, and its receipt. restic backs up the file that SAVE wrote.
Between rounds one key of a hundred is written anew. Everything goes over loopback, through a relay
that counts; restic writes its repository beside it, and what that grows by counts as sent.

Prints a table and the lines ``ratio bytes_sent X`` and ``ratio backup_seconds X``, ours by classic.
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

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "roles" / "redis_backup_tool" / "files")]

from bench.relay import Relay, relay  # noqa: E402  # the line above finds it
from tests.tool import backup_lab  # noqa: E402

MIB = 2**20


def fill(server: backup_lab.RedisProcess, numbers: list[int], seed: int) -> None:
    """Write sessions as an application has them: JSON of about 200 bytes, half of them expire."""
    chance = random.Random(seed)
    with server.client() as client, client.pipeline(transaction=False) as pipe:
        for count, number in enumerate(numbers, 1):
            token = f"{chance.getrandbits(256):064x}"
            value = (
                f'{{"id":{number},"user":"user-{number % 5000}@example.org","token":"{token}",'
                f'"roles":["reader","writer"],"seen":{1_700_000_000 + number},"cart":[]}}'
            )
            pipe.set(f"session:{number}", value, ex=86400 * 30 if number % 2 else None)
            if count % 5000 == 0:
                pipe.execute()
        pipe.execute()


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
        shutil.copyfile(self.server.data / "dump.rdb", copy)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if shutil.which("restic") is None:
        raise SystemExit("restic is needed: apt-get install restic")
    seconds: dict[str, list[float]] = {}
    sent: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        root = Path(directory)
        with backup_lab.lab(root, "redis-1") as lab, relay(lab.server.port) as counter:
            contest = Contest(root, lab, counter)
            fill(contest.server, list(range(arguments.keys)), 0)
            ways = {"classic": contest.classic, "ours": contest.ours, "restic": contest.restic}
            for number in range(arguments.rounds):
                for name, way in ways.items():
                    began = time.monotonic()
                    sent.setdefault(name, []).append(way(number))
                    seconds.setdefault(name, []).append(time.monotonic() - began)
                changed = random.Random(number).sample(range(arguments.keys), arguments.keys // 100)
                fill(contest.server, changed, number + 1)
            plain = (contest.server.data / "dump.rdb").stat().st_size
    print(f"{arguments.keys} keys, {plain / MIB:.1f} MiB dump.rdb, {arguments.rounds} rounds")
    for name in ways:
        print(
            f"{name:<8} {statistics.median(seconds[name]):6.2f} s (all: "
            + " ".join(f"{value:.2f}" for value in seconds[name])
            + f"), {statistics.median(sent[name]) / MIB:7.1f} MiB sent (all: "
            + " ".join(f"{value / MIB:.1f}" for value in sent[name])
            + ")"
        )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    volume = {name: statistics.median(values) for name, values in sent.items()}
    print(f"ratio bytes_sent {volume['ours'] / volume['classic']:.2f}")
    print(f"ratio backup_seconds {median['ours'] / median['classic']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
