"""Random damage to stored backups: every one is refused, by `verify` and by a drill before its
server starts, and none is ever called good.

Kinds that say *all hashes right* stand for whoever can write to the repository: manifest and
catalogue are made to fit, and only what the RDB itself proves is left to tell. It is walked while
the sandboxed server loads it, so there a server may start; what it says changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from redis_backup.commands import verify
from redis_backup.config import model, reader
from redis_backup.drill import run as drill_run
from redis_backup.formats import document
from redis_backup.repository import catalogue
from redis_backup.sandbox import launchers

from tests.campaigns.conftest import Size, TellTable
from tests.campaigns.scene import quiet
from tests.tool.backup_lab import (
    SET,
    Lab,
    drill_config,
    fill,
    id_now,
    lab,
    make_upload,
    run,
    start_redis,
)

MANIFEST, PAYLOAD, RECEIPT = "manifest.json", "dump.rdb.zst", "receipt.json"


def dumps(root: Path) -> list[bytes]:
    """Three datasets of one server, as it grows."""
    server = start_redis(root)
    made = []
    try:
        with server.client() as client:
            for number in range(3):
                fill(client)
                client.mset({f"more:{number}:{key}": os.urandom(20) for key in range(40)})
                client.save()
                made.append((server.data / "dump.rdb").read_bytes())
    finally:
        server.stop()
    return made


@dataclass
class Store:
    """A store with three good backups, of which two were drilled, and the way back to it."""

    made: Lab
    ids: list[str]
    draw: random.Random

    @property
    def set_dir(self) -> Path:
        """The set in the store."""
        return self.made.server.store / SET

    @property
    def lines(self) -> Path:
        """The catalogue."""
        return self.set_dir / "catalogue.jsonl"

    def any(self, *names: str) -> Path:
        """A file of this name (or of one of them) of some backup; `catalogue` for the catalogue,
        `drill` for what a drill left, `event` for the document of another event.
        """
        name = self.draw.choice(names)
        if name == "catalogue":
            return self.lines
        if name == "drill":
            return self.draw.choice(sorted(self.set_dir.glob("drills/*/*.json")))
        if name == "event":
            return self.draw.choice(sorted(self.set_dir.glob("events/*.json")))
        if name == "repository":
            return self.made.server.store / "repository.json"
        return self.set_dir / self.draw.choice(self.ids) / name

    def keep(self) -> None:
        """Remember it as it is now."""
        shutil.copytree(self.set_dir, self.made.root / "pristine", symlinks=True)
        shutil.copy(self.made.server.store / "repository.json", self.made.root)

    def restore(self) -> None:
        """As it was."""
        shutil.copy(self.made.root / "repository.json", self.made.server.store)
        shutil.rmtree(self.set_dir)
        shutil.copytree(self.made.root / "pristine", self.set_dir, symlinks=True)

    def is_restored(self) -> bool:
        """Whether every file of the set is as it was."""
        there, was = (
            {
                path.relative_to(root): path.read_bytes()
                for path in root.rglob("*")
                if path.is_file()
            }
            for root in (self.set_dir, self.made.root / "pristine")
        )
        return there == was

    def write(self, path: Path, data: bytes) -> None:
        """Replace a file's content, whatever its mode."""
        path.chmod(0o600)
        path.write_bytes(data)

    def manifest(self, backup_id: str) -> Any:
        """The manifest's JSON."""
        return json.loads((self.set_dir / backup_id / MANIFEST).read_bytes())

    def forge(self, backup_id: str, data: Any, *, chain: bool = True) -> None:
        """Write a manifest and its sha256 into the catalogue; with `chain` all lines after it are
        made to fit as well.
        """
        raw = (json.dumps(data, indent=2) + "\n").encode()
        self.write(self.set_dir / backup_id / MANIFEST, raw)
        digest = hashlib.sha256(raw).hexdigest()
        known = catalogue.read(self.set_dir)
        if not chain:
            text = self.lines.read_text()
            self.write(
                self.lines,
                text.replace(known.accepted()[backup_id].manifest_sha256, digest).encode(),
            )
            return
        entries = [
            replace(entry, manifest_sha256=digest) if entry.id == backup_id else entry
            for entry in known.entries
        ]
        catalogue.rewrite(self.set_dir, entries)
        # And the documents behind the lines.
        for path in [*self.set_dir.glob("*/receipt.json"), *self.set_dir.glob("drills/*/*.json")]:
            raw = path.read_bytes()
            was = known.accepted()[backup_id].manifest_sha256.encode()
            if was in raw and path.name == "receipt.json":
                self.write(path, raw.replace(was, digest.encode()))

    def plain(self, backup_id: str) -> bytes:
        """The RDB of a backup."""
        path = self.set_dir / backup_id / PAYLOAD
        return subprocess.run(["zstd", "-dcq", str(path)], check=True, capture_output=True).stdout

    def forge_rdb(self, backup_id: str, rdb: bytes) -> None:
        """Put another RDB in a backup's place, with all hashes right."""
        packed = subprocess.run(
            ["zstd", "-cq", "--check"], input=rdb, check=True, capture_output=True
        ).stdout
        self.write(self.set_dir / backup_id / PAYLOAD, packed)
        data = self.manifest(backup_id)
        data["files"][0].update(
            size=len(rdb),
            sha256=hashlib.sha256(rdb).hexdigest(),
            stored_size=len(packed),
            stored_sha256=hashlib.sha256(packed).hexdigest(),
        )
        self.forge(backup_id, data)


# Each kind damages a store and returns the backups that must not be called good.
Kind = Callable[[Store], list[str]]


def of(place: Store, path: Path) -> list[str]:
    """The backups that a damaged file takes with it. A catalogue of which only the end is gone, as
    a killed writer leaves it, still vouches for what it names before.
    """
    if path.name in (RECEIPT, "repository.json", "report.json") or "events" in path.parts:
        return []  # no backup is bad for it, and somebody has to be told
    if path != place.lines:
        return [path.parent.name]
    was = (place.made.root / "pristine" / path.name).read_bytes()
    now = path.read_bytes() if path.exists() else b""
    whole = now[: now.rfind(b"\n") + 1]
    if not was.startswith(whole):
        return place.ids
    named = {
        entry["id"] for entry in map(json.loads, whole.splitlines()) if entry["event"] == "accepted"
    }
    return [backup_id for backup_id in place.ids if backup_id not in named]


def changed(place: Store, data: bytes, how: Callable[[bytearray], None]) -> bytes:
    """Data after a change that is one."""
    while True:
        new = bytearray(data)
        how(new)
        if new != data and told(data) != told(new):
            return bytes(new)


def told(raw: bytes | bytearray) -> object:
    """What a document says that others say too: which repository it is of, and since when there is
    one, is said by nothing else.
    """
    try:
        data = json.loads(raw)
    except ValueError:
        return bytes(raw)
    if not isinstance(data, dict) or data.keys().isdisjoint(("repository", "created")):
        return bytes(raw)
    return {key: value for key, value in data.items() if key not in ("repository", "created")}


def flip(place: Store) -> Callable[[bytearray], None]:
    """One bit."""

    def change(data: bytearray) -> None:
        data[place.draw.randrange(len(data))] ^= 1 << place.draw.randrange(8)

    return change


def cut(place: Store) -> Callable[[bytearray], None]:
    """Some of the end is missing."""

    def change(data: bytearray) -> None:
        del data[place.draw.randrange(len(data)) :]

    return change


def zero(place: Store) -> Callable[[bytearray], None]:
    """A block of zeroes, as a disk leaves it."""

    def change(data: bytearray) -> None:
        size = min(len(data), place.draw.choice((1, 8, 64, 512, 4096)))
        start = place.draw.randrange(len(data) - size + 1)
        data[start : start + size] = bytes(size)

    return change


def more(place: Store) -> Callable[[bytearray], None]:
    """Something behind the end."""

    def change(data: bytearray) -> None:
        size = place.draw.choice((1, 2, 40, 4096))
        data += place.draw.choice((bytes(size), b"\n" * size, place.draw.randbytes(size)))

    return change


def in_file(how: Callable[[Store], Callable[[bytearray], None]], *names: str) -> Kind:
    """A change to the bytes of one of these files."""

    def kind(place: Store) -> list[str]:
        path = place.any(*names)
        place.write(path, changed(place, path.read_bytes(), how(place)))
        return of(place, path)

    return kind


def in_rdb(how: Callable[[Store], Callable[[bytearray], None]]) -> Kind:
    """A change to the RDB before it was compressed and hashed."""

    def kind(place: Store) -> list[str]:
        backup_id = place.draw.choice(place.ids)
        place.forge_rdb(backup_id, changed(place, place.plain(backup_id), how(place)))
        return [backup_id]

    return kind


def zeroed_checksum(place: Store) -> Callable[[bytearray], None]:
    """What Redis takes for: not checked."""

    def change(data: bytearray) -> None:
        data[-8:] = bytes(8)

    return change


def missing(place: Store) -> list[str]:
    """A file, or a backup as a whole."""
    path = place.any(MANIFEST, PAYLOAD, "catalogue")
    if path != place.lines and place.draw.random() < 0.3:
        shutil.rmtree(path.parent)
    else:
        path.unlink()
    return of(place, path)


def something_else(place: Store) -> list[str]:
    """A link to the good file, or a directory, where a file is due."""
    path = place.any(MANIFEST, PAYLOAD)
    good = place.made.root / "pristine" / path.parent.name / path.name
    path.unlink()
    if place.draw.random() < 0.5:
        path.symlink_to(good)
    else:
        path.mkdir()
    return of(place, path)


def swapped(place: Store) -> list[str]:
    """Payloads, manifests or all of two backups."""
    one, two = place.draw.sample(place.ids, 2)
    name = place.draw.choice((PAYLOAD, MANIFEST, ""))
    aside = place.set_dir / "aside"
    (place.set_dir / one / name).rename(aside)
    (place.set_dir / two / name).rename(place.set_dir / one / name)
    aside.rename(place.set_dir / two / name)
    return [one, two]


def edit(place: Store, data: Any) -> None:
    """A lie in a manifest, of a kind that the payload contradicts."""
    file = data["files"][0]
    choice = place.draw.randrange(8)
    if choice < 3:
        counts = data["databases"][place.draw.choice(sorted(data["databases"]))]
        counts["keys"] += place.draw.choice((-1, 1, 100))
        counts["expires"] = min(counts["expires"], counts["keys"])
    elif choice == 3:
        data["databases"][str(place.draw.randint(6, 15))] = {"keys": 1, "expires": 0}
    elif choice == 4:
        data["fork_time"] += place.draw.choice((-1, 1, 86400))
    elif choice == 5:
        data["rdb"]["version"] += place.draw.choice((-1, 1))
    elif choice == 6:
        file[place.draw.choice(("size", "stored_size"))] += place.draw.choice((-1, 1))
    else:
        file[place.draw.choice(("sha256", "stored_sha256"))] = place.draw.randbytes(32).hex()


def edited(*, hashes: bool, chain: bool) -> Kind:
    """A manifest that was edited, and what was made to fit."""

    def kind(place: Store) -> list[str]:
        backup_id = place.draw.choice(place.ids)
        data = place.manifest(backup_id)
        edit(place, data)
        if hashes:
            place.forge(backup_id, data, chain=chain)
        else:
            raw = (json.dumps(data, indent=2) + "\n").encode()
            place.write(place.set_dir / backup_id / MANIFEST, raw)
        return place.ids if hashes and not chain else [backup_id]

    return kind


def another_payload(place: Store) -> list[str]:
    """The payload of another backup, with all hashes right."""
    one, two = place.draw.sample(place.ids, 2)
    place.forge_rdb(one, place.plain(two))
    return [one]


def line_removed(place: Store) -> list[str]:
    """Any line of the catalogue."""
    lines = place.lines.read_bytes().splitlines(keepends=True)
    del lines[place.draw.randrange(len(lines))]
    place.write(place.lines, b"".join(lines))
    return of(place, place.lines)


def lines_moved(place: Store) -> list[str]:
    """Two lines in each other's place, or one twice."""
    lines = place.lines.read_bytes().splitlines(keepends=True)
    one, two = place.draw.sample(range(len(lines)), 2)
    if place.draw.random() < 0.5:
        lines[one], lines[two] = lines[two], lines[one]
    else:
        lines.insert(two, lines[one])
    place.write(place.lines, b"".join(lines))
    return place.ids


DOCUMENTS = (RECEIPT, "drill", "event", "repository")


def document_gone(place: Store) -> list[str]:
    """The truth behind a line."""
    path = place.any(*DOCUMENTS)
    path.unlink()
    return of(place, path)


KINDS: dict[str, Kind] = {
    "bit flip in a payload": in_file(flip, PAYLOAD),
    "bit flip in a manifest": in_file(flip, MANIFEST),
    "bit flip in the catalogue": in_file(flip, "catalogue"),
    "truncation": in_file(cut, PAYLOAD, MANIFEST, "catalogue"),
    "zeroed block": in_file(zero, PAYLOAD, MANIFEST, "catalogue"),
    "trailing garbage": in_file(more, PAYLOAD, MANIFEST, "catalogue"),
    "file or backup missing": missing,
    "link or directory for a file": something_else,
    "swapped files": swapped,
    "manifest edited": edited(hashes=False, chain=False),
    "manifest edited, its hash right": edited(hashes=True, chain=False),
    "manifest edited, all hashes right": edited(hashes=True, chain=True),
    "another payload, all hashes right": another_payload,
    "RDB: bit flip, all hashes right": in_rdb(flip),
    "RDB: truncation, all hashes right": in_rdb(cut),
    "RDB: zeroed block, all hashes right": in_rdb(zero),
    "RDB: trailing garbage, all hashes right": in_rdb(more),
    "RDB: zeroed checksum, all hashes right": in_rdb(zeroed_checksum),
    "catalogue line removed": line_removed,
    "catalogue lines swapped or doubled": lines_moved,
    "document: bit flip": in_file(flip, *DOCUMENTS),
    "document: truncation": in_file(cut, *DOCUMENTS),
    "document: zeroed block": in_file(zero, *DOCUMENTS),
    "document: missing": document_gone,
}


def filled(made: Lab, root: Path, draw: random.Random, last: str) -> Store:
    """Three backups, drilled or not yet, in the way they come; `last` is the catalogue's last
    event.
    """
    ids = []
    for number, dump in enumerate(dumps(root)):
        ids.append(id_now("redis-1", number - 60))
        make_upload(made.server.inbox / "redis-1", dump, ids[-1])
        if last == "accepted" and number == 2:
            report(made, ids[0], 0)
            report(made, ids[1], 1)
        assert made.server.accept().json["accepted"] == [f"{SET}/{ids[-1]}"]
        if number == 0:
            assert run("--config", made.server.config, "keep", ids[0], "--days", "9").code == 0
    if last == "drilled":
        report(made, ids[0], 0)
        report(made, ids[2], 1)
        assert len(made.server.accept().json["drills"]) == 2
    place = Store(made, ids, draw)
    assert catalogue.read(place.set_dir).entries[-1].event == last
    place.keep()
    return place


def report(made: Lab, backup_id: str, number: int) -> None:
    """A drill that passed, as it arrives."""
    upload = made.server.inbox / "drill-1" / id_now("drill-1", number - 10)
    upload.mkdir()
    data = {"set": SET, "backup_id": backup_id, "level": "load", "verdict": "passed"}
    (upload / "report.json").write_bytes(document.encode(data))


@pytest.mark.parametrize("last", ["accepted", "drilled"])
def test_every_damage_is_refused(
    tmp_path: Path,
    draw: random.Random,
    size: Size,
    table: TellTable,
    monkeypatch: pytest.MonkeyPatch,
    last: str,
) -> None:
    tries = size(1, 40)
    drills_of_each = size(1, 10)
    verified: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    drilled: Counter[str] = Counter()
    missed: list[str] = []
    with lab(tmp_path / "lab", "redis-1", kick=False) as made:
        place = filled(made, tmp_path / "dumps", draw, last)
        server = reader.load(made.server.config)
        assert isinstance(server, model.ServerConfig)
        # Nobody takes its reports: they are not what is asked for here.
        prover = reader.load(drill_config(made, receipt_timeout_seconds=0.1))
        assert isinstance(prover, model.DrillConfig)
        assert all(item["ok"] for item in verify.run(server, None, quiet()))
        [proven] = drill_run.run(prover, place.ids[0], quiet())
        assert proven.report["verdict"] == "passed", proven.report

        def started(*_: object) -> None:
            raise AssertionError("a server was started on a damaged backup")

        real = launchers.ProcessLauncher.start
        for name, kind in KINDS.items():
            monkeypatch.setattr(
                launchers.ProcessLauncher, "start", real if "all hashes right" in name else started
            )
            for number in range(tries):
                victims = kind(place)
                results = verify.run(server, None, quiet())
                good = {item["what"] for item in results if item["ok"]}
                wrong = [item["error"] for item in results if not item["ok"]]
                if any(f"{SET}/{victim}" in good for victim in victims):
                    missed.append(f"verify: {name} ({number}): {victims}: {wrong}")
                if number < drills_of_each and victims:
                    asked[name] += 1
                    victim = draw.choice(victims)
                    [outcome] = drill_run.run(prover, victim, quiet())
                    reason = outcome.report.get("reason", "")
                    if outcome.report["verdict"] == "failed" and "was started" not in reason:
                        drilled[name] += 1
                    else:
                        missed.append(f"drill: {name} ({number}): {victim}: {outcome.report}")
                    shutil.rmtree(made.root / "work" / "reports")
                for upload in (made.server.inbox / "drill-1").iterdir():
                    shutil.rmtree(upload)
                # A catalogue that lost its end is as a killed writer leaves it: it is finished.
                if wrong or (made.server.accept().code == 0 and place.is_restored()):
                    verified[name] += 1
                else:
                    missed.append(f"not found: {name} ({number}): {victims}")
                place.restore()
        # And what was put back is good again: it was the damage that was found.
        assert all(item["ok"] for item in verify.run(server, None, quiet()))
    table(
        (f"damage, after a line of {last}", "tried", "found", "drilled", "refused"),
        [
            *((name, tries, verified[name], asked[name], drilled[name]) for name in KINDS),
            (
                f"{len(KINDS)} kinds",
                len(KINDS) * tries,
                verified.total(),
                asked.total(),
                drilled.total(),
            ),
        ],
    )
    assert missed == []
