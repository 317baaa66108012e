"""No start over data that would not be loaded: every mixture of RDB and append-only file, by the
modules' own code against real servers, and what has to come of it.

The files are written by servers of the engine in question. For a start they lie there before; for a
restart they replace what a running server has under its feet.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_start import (
    AOF,
    EMPTY,
    RDB,
    STOP,
)

from tests.campaigns.conftest import SOAK, TellTable
from tests.support.hosts_in_a_directory import Host, host
from tests.tool.test_drill_engines import BINARIES

# The role deploys no Valkey 9 yet: what its files hold, no module reads.
DEPLOYED = [name for name in BINARIES if name != "valkey 9"]

RDBS = ("none", "keys", "empty")
AOFS = ("none", "keys", "empty", "older")
SWITCH = {True: "yes", False: "no"}

# What a stopped server loads, by its RDB and its append-only file, whatever the inventory says. The
# last row has two answers, where the file says yes and where it says no: a server that wrote an
# append-only file till its end has everything in it.
LOADS: dict[tuple[str, str], str | dict[str, str]] = {
    ("none", "none"): EMPTY,
    ("none", "keys"): AOF,
    ("none", "empty"): EMPTY,
    ("none", "older"): AOF,  # than nothing
    ("keys", "none"): RDB,
    ("keys", "keys"): AOF,
    ("keys", "empty"): STOP,  # was everything deleted, or does the file belong to other data?
    ("keys", "older"): RDB,
    ("empty", "none"): EMPTY,
    ("empty", "keys"): AOF,
    ("empty", "empty"): EMPTY,
    ("empty", "older"): {"yes": AOF, "no": STOP},
}


class Case(NamedTuple):
    """One combination."""

    rdb: str
    aof: str
    file: bool
    inventory: bool
    verb: str

    @property
    def expected(self) -> str:
        """What has to come of it. What a running server has in memory is the newest there is."""
        if self.verb == "restart":
            if not self.inventory:
                return RDB  # of the snapshot that is taken before
            # An append-only file that is gone is written anew. Another one in its place is not
            # overwritten. Where there was none, the run has just switched it on.
            return STOP if self.file and self.aof != "none" else AOF
        loads = LOADS[self.rdb, self.aof]
        return loads if isinstance(loads, str) else loads[SWITCH[self.file]]


CASES = [
    Case(*words)
    for words in itertools.product(RDBS, AOFS, (True, False), (True, False), ("start", "restart"))
]


class Library:
    """Files that a server of one engine wrote, with the names of their keys in them."""

    def __init__(self, root: Path, engine: str) -> None:
        self.root = root
        for name, keys, appendonly in (
            ("rdb-keys", 40, False),
            ("rdb-empty", 0, False),
            ("aof-keys", 30, True),
            ("aof-empty", 0, True),
        ):
            place = root / name
            place.mkdir(parents=True)
            with host(place, BINARIES[engine]()) as made:
                made.begin(appendonly)
                made.fill(name, keys or 10)
                if not keys:
                    made("FLUSHALL")
                if appendonly:
                    made("BGREWRITEAOF")
                    self.until(made, "aof_rewrite_in_progress:0")
                    self.until(made, "aof_rewrite_scheduled:0")
                    if keys:
                        made("SET", "aof-keys:more", "appended")
                else:
                    made("SAVE")

    @staticmethod
    def until(made: Host, state: str) -> None:
        while state not in made("INFO", "persistence"):
            time.sleep(0.02)

    def place(self, case: Case, data: Path) -> None:
        """Put the files of a case into a directory, and nothing else."""
        for path in data.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if case.rdb != "none":
            shutil.copy2(self.root / f"rdb-{case.rdb}" / "data" / "dump.rdb", data)
        if case.aof == "none":
            return
        kind = "empty" if case.aof == "empty" else "keys"
        # The RDBs say the time at which they were made; the library is some seconds old.
        moment = time.time() - (3600 if case.aof == "older" else -1)
        for path in (self.root / f"aof-{kind}" / "data").glob("appendonly*"):
            if path.is_dir():
                shutil.copytree(path, data / path.name)
                for part in (data / path.name).iterdir():
                    os.utime(part, (moment, moment))
            else:
                shutil.copy2(path, data)
                os.utime(data / path.name, (moment, moment))


def tree(data: Path) -> dict[str, bytes]:
    """Every file of the data."""
    found = {path.relative_to(data): path for path in data.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items()}


def what_came_of(case: Case, made: Host, library: Library) -> str:
    """Play one case; what was loaded. Nothing that lay there may be gone where it stopped."""
    if case.verb == "restart":
        return restarted(case, made, library)
    library.place(case, made.data)
    made.config.write_text(made.content(case.file))
    before = tree(made.data)
    done = made.deploy(case.inventory)
    if done.get("failed"):
        assert tree(made.data) == before, case
        assert made.pid is None, case
        assert_is_told(done["msg"], made)
        return STOP
    keys = made.keys()
    assert made("CONFIG", "GET", "appendonly")[1] == SWITCH[case.inventory], case
    # What was not loaded is still there, under its name or another.
    kept = set(tree(made.data).values())
    if case.aof == "older" and case.rdb == "keys":
        assert {b for n, b in before.items() if "append" in n} <= kept, case
    crashed_and_back(made, keys)
    if not keys:
        return EMPTY
    return {"rdb-keys": RDB, "aof-keys": AOF}["+".join(keys)]


def crashed_and_back(made: Host, keys: dict[str, int]) -> None:
    """What was loaded and what was written since is there after a crash, where the inventory
    promises an append-only file, and after an orderly end."""
    made("SET", "since:1", "written")
    if made("CONFIG", "GET", "appendonly")[1] == "yes":
        made("WAIT", "0", "0")
        made.kill()
    else:
        made.systemctl_do("stop")
    made.systemctl_do("start")
    made.wait()
    assert made.keys() == {**keys, "since": 1}
    made("DEL", "since:1")


def restarted(case: Case, made: Host, library: Library) -> str:
    made.begin(case.file)
    made.fill("memory", 50)
    library.place(case, made.data)
    configured = made.configure(case.inventory, running=True)
    assert not configured.get("failed"), configured
    pid = made.pid
    done = made.service("restarted")
    assert made.keys() == {"memory": 50}, case
    if done.get("failed"):
        assert made.pid == pid
        assert_is_told(done["msg"], made)
        return STOP
    assert made.pid != pid
    return AOF if made("CONFIG", "GET", "appendonly")[1] == "yes" else RDB


def assert_is_told(message: str, made: Host) -> None:
    """A refusal names the files, what they hold and what to do."""
    assert f"In {made.data} lie dump.rdb: " in message, message
    assert "Move " in message


@pytest.fixture(scope="module", params=DEPLOYED)
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Library]:
    return request.param, Library(tmp_path_factory.mktemp("library"), request.param)


def test_every_mixture_is_loaded_or_refused(
    library: tuple[str, Library],
    tmp_path: Path,
    draw: random.Random,
    table: TellTable,
) -> None:
    engine, files = library
    chosen = CASES if SOAK else draw.sample(CASES, 3)
    came: Counter[str] = Counter()
    wrong = []
    for number, case in enumerate(chosen):
        place = tmp_path / str(number)
        place.mkdir()
        with host(place, BINARIES[engine]()) as made:
            outcome = what_came_of(case, made, files)
        came[outcome] += 1
        if outcome != case.expected:
            wrong.append(f"{case}: {outcome}, not {case.expected}")
    outcomes = (RDB, AOF, EMPTY, STOP)
    table(
        ("engine", "combinations", *outcomes, "not as expected"),
        [(engine, len(chosen), *(came[outcome] for outcome in outcomes), len(wrong))],
    )
    assert not wrong, "\n".join(wrong)


def test_the_table_has_every_combination() -> None:
    assert len(set(CASES)) == 96
    assert set(LOADS) == set(itertools.product(RDBS, AOFS))
    assert all(case.expected in (RDB, AOF, EMPTY, STOP) for case in CASES)
