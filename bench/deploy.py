"""How long `site.yml` takes, against a bare role of eight tasks on the same hosts.

Both are run on new hosts of a lab, and once more with nothing left to do; several rounds, taking
turns:

    python3 bench/deploy.py --hosts 3 12

Prints a table and the lines ``ratio first_site X`` and ``ratio noop_site X``: our wall time by
theirs, medians of the rounds, each the worst of the given numbers of hosts. `--profile` adds what
each of our tasks took.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from lab import cli  # noqa: E402  # the line above finds it
from lab.shell import LabError  # noqa: E402

OURS = Path("site.yml")
BARE = Path("bench/bare/site.yml")


@dataclass(frozen=True)
class Timing:
    """Seconds of wall time of a playbook on one lab: the first run, and the one after it."""

    first: float
    noop: float


def hosts_yml(count: int) -> str:
    """An inventory of ``count`` hosts: Redis, but for one backup server and one drill host."""
    replicas = "".join(f"        redis-{number}:\n" for number in range(2, count - 1))
    return (
        "---\nredis:\n  children:\n    redis_master:\n      hosts:\n        redis-1:\n"
        + (f"    redis_replicas:\n      hosts:\n{replicas}" if replicas else "")
        + "backup_server:\n  hosts:\n    backup-1:\nrestore_drill:\n  hosts:\n    drill-1:\n"
    )


def play(playbook: Path, inventory: Path, log: Path, *, profile: bool) -> tuple[float, int]:
    """Run a playbook; its wall time in seconds and how much it changed."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "NO_COLOR": "1"}
    if profile:
        environment["ANSIBLE_CALLBACKS_ENABLED"] = "task_times"
        environment["ANSIBLE_CALLBACK_PLUGINS"] = str(PROJECT / "bench" / "callback_plugins")
    began = time.monotonic()
    with log.open("w") as output:
        done = subprocess.run(
            ["ansible-playbook", "-i", str(inventory), str(playbook)],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    seconds = time.monotonic() - began
    text = log.read_text()
    if done.returncode != 0:
        raise SystemExit(f"{playbook} failed; its last lines:\n{text[-3000:]}")
    recap = text.rpartition("PLAY RECAP")[2]
    changed = sum(int(word.split("=")[1]) for word in recap.split() if word.startswith("changed="))
    return seconds, changed


def measure(playbook: Path, count: int, *, profile: bool) -> Timing:
    """Times of a playbook on ``count`` new hosts, which are removed afterwards."""
    name = f"bench-{count}"
    tracked = Path(".labs") / f"{name}-hosts"
    (PROJECT / tracked).mkdir(parents=True, exist_ok=True)
    (PROJECT / tracked / "hosts.yml").write_text(hosts_yml(count))
    try:
        cli.create(name, tracked, replace_lost=False)
        inventory = PROJECT / ".labs" / name / "inventory"
        log = PROJECT / ".labs" / f"{name}.log"
        seconds = []
        for step in ("first", "nothing to do"):
            took, changed = play(playbook, inventory, log, profile=profile)
            seconds.append(took)
            if profile:
                print(f"{playbook}, {count} hosts, {step}:")
                print(log.read_text().rpartition("PLAY RECAP")[2].partition("\n\n")[2])
        if changed:
            raise SystemExit(f"{playbook} changed {changed} things in its second run: see {log}")
    finally:
        cli.destroy(name)
        shutil.rmtree(PROJECT / tracked)
    return Timing(*seconds)


def median(timings: list[Timing]) -> Timing:
    """The medians of several rounds."""
    return Timing(
        statistics.median(timing.first for timing in timings),
        statistics.median(timing.noop for timing in timings),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[3, 12], metavar="N")
    parser.add_argument("--rounds", type=int, default=3, help="new labs per playbook and number")
    parser.add_argument("--profile", action="store_true", help="what each of our tasks took")
    arguments = parser.parse_args()
    ratios: dict[str, list[float]] = {"first_site": [], "noop_site": []}
    try:
        for count in arguments.hosts:
            rounds: dict[Path, list[Timing]] = {BARE: [], OURS: []}
            for number in range(arguments.rounds):
                for playbook, timings in rounds.items():
                    profile = arguments.profile and number == 0
                    timings.append(measure(playbook, count, profile=profile))
            theirs, ours = median(rounds[BARE]), median(rounds[OURS])
            for what, timing in (("bare role", theirs), ("site.yml", ours)):
                print(
                    f"{count:3} hosts  {what:<10} first {timing.first:6.1f} s"
                    f" ({timing.first / count:5.2f} s per host),"
                    f" nothing to do {timing.noop:5.1f} s ({timing.noop / count:5.2f} s per host)",
                    flush=True,
                )
            ratios["first_site"].append(ours.first / theirs.first)
            ratios["noop_site"].append(ours.noop / theirs.noop)
    except LabError as problem:
        raise SystemExit(f"error: {problem}") from None
    for name, values in ratios.items():
        print(f"ratio {name} {max(values):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
