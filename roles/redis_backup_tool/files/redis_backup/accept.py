"""`redis-backup accept`: what hosts uploaded, checked and copied from the inbox into the store.

An inbox is written by a host that may have been taken over: nothing in it is followed, renamed or
trusted. Every file is copied into a new one while it is hashed, and only the copy is judged.

Order, so that a kill at any point is finished by the next pass: copy and verify in
`<store>/.incoming/` → rename into the store → catalogue line → receipt → removal from the inbox. A
backup in the store without a line is verified again and gets it (or goes to
`<store>/.quarantine/`) before the next is taken into its set, a line without a receipt gets its
receipt, and an upload whose id has a line is only removed. Several without a line are not what a
kill leaves: the catalogue lost them, and nothing is added until somebody looked.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import catalogue as catalogue_module
from . import codec, receipts, store, verify
from . import manifest as manifest_module
from .catalogue import FIRST_PREVIOUS, Catalogue, Entry
from .config import DAY, ServerConfig, UploadSource, load_upload_sources
from .errors import ToolError, UsageError
from .fields import is_backup_id, is_name, parse_json
from .files import (
    check_owner,
    free_bytes,
    fsync_directory,
    locked,
    make_directory,
    remove_entry,
    remove_tree,
    total_bytes,
    write_durably,
)
from .manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, STORED_NAME, Manifest
from .output import Output, human_bytes
from .receipts import ACCEPTED, REJECTED, Receipt

REPORT_NAME = "report.json"
LOST = "lost+found"
MAX_REPORT_BYTES = 4 * 1024 * 1024
# What rsync calls a file that is arriving, and leaves when it is killed: `.<name>.<6 characters>`.
_ARRIVING = re.compile(r"\..+\.[A-Za-z0-9]{6}")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")
# Dumps shrink 2 to 20 times, those of empty bitmaps thousands of times. Nothing decompressed
# is ever stored: the bound is there so that one host cannot keep the server reading for days.
_RATIO_MAX = 1000
_PLAIN_ALWAYS = 16 * 1024**3
# After so long a host's turn in a pass ends, and after so long the run, each with what it is at:
# neither the uploads of others nor the retention wait for one host, and the timer goes on.
_TURN = 60.0  # seconds
_RUN = 600.0  # seconds
# Of each host, in one run. More are counted only: a flood of names is no flood of the journal.
_TOLD_MAX = 20
_REASON_MAX = 500


class RejectedError(ToolError):
    """An upload is not what it should be. `manifest_sha256` is known when its manifest could be
    read.
    """

    def __init__(self, message: str, manifest_sha256: str | None = None) -> None:
        super().__init__(message)
        self.manifest_sha256 = manifest_sha256


class _ReplacedError(Exception):
    """The sender took away what we were looking at in its inbox."""


@contextmanager
def _replaceable() -> Iterator[None]:
    """Around calls that look into an inbox, and only these: what is missing of our own is a
    fault.
    """
    try:
        yield
    except FileNotFoundError:
        raise _ReplacedError from None


@dataclass
class Outcome:
    """What a run did: ids as `<set>/<id>`, and what went wrong on our side."""

    accepted: list[str]
    rejected: list[dict[str, str]]
    drills: list[str]
    healed: list[str]
    problems: list[str]

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return dict(vars(self))


class Acceptor:
    """One run, under the store's lock. `clock` is unix time in seconds. `rebuild`: the set whose
    backups without a line get one, however many they are.
    """

    def __init__(
        self,
        config: ServerConfig,
        output: Output,
        clock: Callable[[], float] = time.time,
        rebuild: str | None = None,
    ) -> None:
        self.config = config
        self.output = output
        self.clock = clock
        self.rebuild = rebuild
        self.outcome = Outcome([], [], [], [], [])
        self.failed: set[tuple[str, str]] = set()
        self.closed: set[str] = set()
        self.looked_at: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self.sources: list[UploadSource] = []

    def run(self) -> Outcome:
        """Pass over the inboxes until one pass finds nothing complete, or it took long, then finish
        what a killed run began.
        """
        codec.binary()
        incoming = self.config.store / store.INCOMING_NAME
        make_directory(incoming)
        for left in list(incoming.iterdir()):
            remove_tree(left)
        self.sources = load_upload_sources(self.config.sources_dir)
        if self.rebuild is not None:
            self._rebuild(self.rebuild)
        end = time.monotonic() + _RUN
        while self._pass() and time.monotonic() < end:
            pass
        for host, count in self.told.items():
            if count > _TOLD_MAX:
                self.output.warn(f"rejected: {host}: {count - _TOLD_MAX} more, not shown")
        self._heal()
        self._drop_receipts()
        return self.outcome

    def _tell_rejected(self, host: str, name: str, reason: str) -> None:
        self.told[host] = self.told.get(host, 0) + 1
        if self.told[host] <= _TOLD_MAX:
            self.outcome.rejected.append({"host": host, "id": _shown(name), "reason": reason})
            self.output.warn(f"rejected: {host}/{_shown(name)}: {reason}")

    def _problem(self, text: str) -> None:
        if text not in self.outcome.problems:
            self.outcome.problems.append(text)
            self.output.warn(text)

    # --- finishing what a killed run began ---

    def _heal(self) -> None:
        for name in store.set_names(self.config.store):
            try:
                self._heal_set(self.config.store / name)
            except Exception as problem:
                self._problem(f"set {name}: {_told(problem)}")

    def _settled(self, set_dir: Path) -> Catalogue:
        """The catalogue of a set, once the one backup that a killed run may have left in the store
        has its line: two that lack theirs are then never a kill's doing. Raises CatalogueError when
        lines were lost.
        """
        known = catalogue_module.read(set_dir)
        store.check_lines(set_dir, known)
        for backup_id in store.without_line(set_dir, known):
            try:
                known = self._finish(set_dir, known, backup_id, self.clock())
            except Exception as problem:
                raise ToolError(
                    f"{set_dir.name}/{backup_id}: not finished: {_told(problem)}"
                ) from None
        return known

    def _rebuild(self, set_name: str) -> None:
        """Give each backup of a set that has no line one, of the time in its id: that is never more
        than a day from when it was accepted, and tells the retention what it is old enough for.
        """
        set_dir = self.config.store / set_name
        if set_name not in store.set_names(self.config.store):
            raise UsageError(f"{set_name[:100]!r} is no set in {self.config.store}")
        known = catalogue_module.read_lines(set_dir)
        for backup_id in store.without_line(set_dir, known):
            try:
                known = self._finish(set_dir, known, backup_id, self._time_of(backup_id))
            except Exception as problem:
                self._problem(f"{set_name}/{backup_id}: not finished: {_told(problem)}")

    def _time_of(self, name: str) -> float:
        """The time in an id, as far as it is past by our clock."""
        return min(self.clock(), manifest_module.id_time(name))

    def _heal_set(self, set_dir: Path) -> None:
        known = self._settled(set_dir)
        for entry in known.present().values():
            if not self._receipt_path(entry.set, entry.id).exists():
                self._give_receipt(entry)
        for path in sorted((set_dir / store.DRILLS_NAME).glob("*.json")):
            drill_id = path.name[: -len(".json")]
            if is_backup_id(drill_id) and not known.has_drill(drill_id):
                report = store.read_drill(set_dir, drill_id)
                known = self._record_drill(
                    set_dir, known, drill_id, report, self._time_of(drill_id)
                )

    def _finish(self, set_dir: Path, known: Catalogue, backup_id: str, at: float) -> Catalogue:
        """Give a backup in the store the line that it lacks, accepted `at` (unix seconds); one that
        is damaged is moved away, so that it is read and told once.
        """
        try:
            manifest, digest = verify.read_manifest(set_dir / backup_id, set_dir.name, backup_id)
            verify.verify_set(set_dir / backup_id, manifest)
        except verify.VerifyError as problem:
            target = self.config.store / store.QUARANTINE_NAME
            make_directory(target)
            target /= set_dir.name
            make_directory(target)
            now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.clock()))
            target /= f"{backup_id}-{now}"
            (set_dir / backup_id).rename(target)
            fsync_directory(set_dir)
            fsync_directory(target.parent)
            self._problem(
                f"{problem} (it was in the store without a line in the catalogue, so nobody was"
                f" told that it is; moved to {target}: look at it, then remove it)"
            )
            return known
        known = self._record(set_dir, manifest, digest, at)
        self.outcome.healed.append(f"{set_dir.name}/{backup_id}")
        self.output.step(f"finished: {set_dir.name}/{backup_id} was in the store without a line")
        return known

    # --- passes over the inboxes ---

    def _pass(self) -> bool:
        """One look at every inbox. Returns whether anything complete was found and dealt with."""
        found = False
        for source in self.sources:
            try:
                inbox = os.open(
                    self.config.inbox / source.host,
                    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                )
            except OSError as problem:
                self._problem(
                    f"{self.config.inbox / source.host}: the inbox cannot be opened"
                    f" ({problem.strerror})"
                )
                continue
            turn = time.monotonic() + _TURN
            try:
                for name in sorted(set(os.listdir(inbox)) - _not_theirs(inbox)):
                    if source.host in self.closed:
                        break
                    if (source.host, name) not in self.failed:
                        found = self._look(source, inbox, name) or found
                        if time.monotonic() > turn:
                            break
            except OSError as problem:
                self._problem(f"{self.config.inbox / source.host}: {problem}")
            finally:
                os.close(inbox)
        return found

    def _look(self, source: UploadSource, inbox: int, name: str) -> bool:
        """Deal with one entry of an inbox. Returns whether it was complete (good or not)."""
        try:
            with _replaceable():
                status = os.stat(name, dir_fd=inbox, follow_symlinks=False)
            complete = self._is_complete(source, inbox, name, status)
            if not complete:
                if self.clock() - _touched(inbox, name, status) > self.config.inbox_max_age:
                    with _replaceable():
                        remove_entry(inbox, name)
                    self.output.step(
                        f"removed: {source.host}/{_shown(name)}: incomplete and too old"
                    )
                return False
            if source.set is not None and _is_id_of(name, source.host):
                recent = self._recent(source.host, source.set)
                if recent >= 2 * self.config.uploads_per_day:
                    # Over the limit it is told so by receipts; those cost room too.
                    self.closed.add(source.host)
                    self._problem(
                        f"{source.host}: {recent} uploads within a day, twice the limit: its inbox"
                        " is not looked at until they are older; see what that host does"
                    )
                    return False
            # What gets no receipt is counted by nothing else.
            looked_at = self.looked_at[source.host] = self.looked_at.get(source.host, 0) + 1
            if looked_at > 2 * self.config.uploads_per_day:
                self.closed.add(source.host)
                self._problem(
                    f"{source.host}: {looked_at - 1} entries of its inbox in one run, twice what is"
                    " looked at in a day: the others wait for the next run; see what that host does"
                )
                return False
            self._take(source, inbox, name)
            with _replaceable():
                remove_entry(inbox, name)
        except _ReplacedError:
            # The next pass sees what is there then.
            return False
        except Exception as problem:
            # Ours to solve (room, rights, a broken catalogue, a fault of this tool): the upload
            # stays, the others go on.
            self.failed.add((source.host, name))
            self._problem(f"{source.host}/{_shown(name)}: not accepted: {_told(problem)}")
            return False
        return True

    def _is_complete(
        self, source: UploadSource, inbox: int, name: str, status: os.stat_result
    ) -> bool:
        if not stat.S_ISDIR(status.st_mode) or not is_backup_id(name):
            return True  # nothing that could become an upload: to be refused at once
        # Sent last, in a transfer of its own, and renamed to this when it is whole.
        return (REPORT_NAME if source.kind == "drill" else MANIFEST_NAME) in _names(inbox, name)

    def _take(self, source: UploadSource, inbox: int, name: str) -> None:
        """Accept or reject one complete upload. Raises ToolError or OSError when the fault is
        ours.
        """
        try:
            if not is_backup_id(name):
                raise RejectedError("the name is not an id of the form YYYYMMDDTHHMMSSZ-<host>")
            if manifest_module.id_host(name) != source.host:
                raise RejectedError(f"the id is not one of {source.host}, whose inbox this is")
            if source.set is None:
                self._take_report(source, inbox, name)
            else:
                self._take_backup(source, source.set, inbox, name)
        except RejectedError as problem:
            self._reject(source, name, problem)

    def _reject(self, source: UploadSource, name: str, problem: RejectedError) -> None:
        reason = str(problem)[:_REASON_MAX]
        self._tell_rejected(source.host, name, reason)
        if source.set is None or not _is_id_of(name, source.host):
            return  # a receipt under that name could be taken for another host's
        receipt = Receipt(
            id=name,
            set=source.set,
            host=source.host,
            status=REJECTED,
            reason="".join(character if character.isprintable() else "?" for character in reason),
            manifest_sha256=problem.manifest_sha256,
            accepted_at=None,
        )
        self._write_receipt(receipt)

    # --- backups ---

    def _take_backup(self, source: UploadSource, set_name: str, inbox: int, name: str) -> None:
        set_dir = self.config.store / set_name
        make_directory(set_dir)
        known = self._settled(set_dir)
        entry = known.accepted().get(name)
        if entry is not None:
            # An id is accepted once. The receipt of the accepted one stays as it is.
            if not self._receipt_path(set_name, name).exists():
                self._give_receipt(entry)
            if _manifest_digest(inbox, name) == entry.manifest_sha256:
                self.output.step(f"removed: {source.host}/{name}: it is in the store already")
                return
            self._tell_rejected(
                source.host, name, "this id was accepted before, with other content"
            )
            return
        if self._receipt_path(set_name, name).exists():
            # Its receipt stays, and it is not verified again: a host could ask for that for ever.
            self._tell_rejected(source.host, name, "an upload of this id was rejected before")
            return
        _check_day(name, self.clock())
        recent = self._recent(source.host, set_name)
        if recent >= self.config.uploads_per_day:
            raise RejectedError(
                f"{source.host} had {recent} uploads accepted or rejected within a day, the limit"
                f" is {self.config.uploads_per_day}"
            )
        work = self.config.store / store.INCOMING_NAME / name
        remove_tree(work)
        work.mkdir(mode=0o700)
        try:
            manifest, digest = self._copy(source, set_name, inbox, name, work)
            try:
                verify.verify_set(
                    work,
                    manifest,
                    progress=lambda done, total: self.output.progress(
                        f"verify {name}", done, total
                    ),
                )
            except verify.VerifyError as problem:
                raise RejectedError(str(problem), digest) from None
            for path in (work / STORED_NAME, work / MANIFEST_NAME):
                path.chmod(0o400)
            fsync_directory(work)
            work.rename(set_dir / name)
            fsync_directory(set_dir)
        finally:
            remove_tree(work)
        self._record(set_dir, manifest, digest, self.clock())
        self.outcome.accepted.append(f"{set_name}/{name}")
        keys = sum(counts.keys for counts in manifest.databases.values())
        self.output.step(
            f"accepted: {set_name}/{name}: {human_bytes(manifest.payload.stored_size)} stored,"
            f" {keys} keys"
        )

    def _recent(self, host: str, set_name: str) -> int:
        """How many uploads of a host were accepted or rejected within a day, by our clock."""
        known = catalogue_module.read(self.config.store / set_name).accepted()
        count = sum(
            entry.host == host and self.clock() - catalogue_module.parse_timestamp(entry.at) < DAY
            for entry in known.values()
        )
        for path in (self.config.receipts / set_name).glob(f"*-{host}.json"):
            upload_id = path.name[: -len(".json")]
            if (
                upload_id not in known
                and manifest_module.id_host(upload_id) == host
                and self.clock() - path.stat().st_mtime < DAY
            ):
                count += 1
        return count

    def _copy(
        self, source: UploadSource, set_name: str, inbox: int, name: str, work: Path
    ) -> tuple[Manifest, str]:
        """Copy manifest and payload into files of our own; the manifest is judged here, the
        payload only by its size and sha256 as it is copied.
        """
        upload = _open_directory(inbox, name)
        try:
            _check_names(upload, (STORED_NAME, MANIFEST_NAME))
            raw = _read_small(upload, MANIFEST_NAME, MAX_MANIFEST_BYTES)
            digest = manifest_module.sha256(raw)
            try:
                manifest = manifest_module.decode(raw, f"{set_name}/{name}/{MANIFEST_NAME}")
            except ToolError as problem:
                raise RejectedError(str(problem), digest) from None
            if (manifest.id, manifest.set, manifest.host) != (name, set_name, source.host):
                raise RejectedError(
                    f"{set_name}/{name}/{MANIFEST_NAME}: is about {manifest.set}/{manifest.id}"
                    f" of {manifest.host}",
                    digest,
                )
            if abs(manifest.fork_time - self.clock()) > DAY:
                raise RejectedError(
                    f"{set_name}/{name}/{MANIFEST_NAME}: fork_time {manifest.fork_time} is more"
                    " than a day off"
                    " the backup server's clock",
                    digest,
                )
            payload = manifest.payload
            if payload.size > max(payload.stored_size * _RATIO_MAX, _PLAIN_ALWAYS):
                raise RejectedError(
                    f"{set_name}/{name}/{STORED_NAME}: announced to grow from {payload.stored_size}"
                    f" to {payload.size} bytes: no dump is so well compressed",
                    digest,
                )
            self._check_share(source.host, set_name, payload.stored_size, digest)
            free = free_bytes(self.config.store)
            if free < payload.stored_size + self.config.disk_reserve:
                raise ToolError(
                    f"{self.config.store} has {human_bytes(free)} free,"
                    f" {human_bytes(payload.stored_size)} and"
                    f" {human_bytes(self.config.disk_reserve)} in reserve are needed: make room"
                )
            copied = _copy_file(
                upload, STORED_NAME, work / STORED_NAME, payload.stored_size, digest
            )
            if copied != codec.Digest(payload.stored_size, payload.stored_sha256):
                raise RejectedError(
                    f"{set_name}/{name}/{STORED_NAME}: arrived as {copied.size} bytes with"
                    f" sha256 {copied.sha256},"
                    f" the manifest says {payload.stored_size} and {payload.stored_sha256}",
                    digest,
                )
        finally:
            os.close(upload)
        write_durably(work / MANIFEST_NAME, raw)
        return manifest, digest

    def _check_share(self, host: str, set_name: str, size: int, digest: str) -> None:
        """That a host's backups of one day leave room for those of others. Its first of a day may
        be of any size that there is room for. Raises RejectedError.
        """
        taken = 0
        for entry in catalogue_module.read(self.config.store / set_name).present().values():
            age = self.clock() - catalogue_module.parse_timestamp(entry.at)
            if entry.host == host and age < DAY:
                with suppress(FileNotFoundError):
                    stored = self.config.store / set_name / entry.id / STORED_NAME
                    taken += stored.stat().st_size
        total = total_bytes(self.config.store)
        if taken and (taken + size) * 100 > total * self.config.share_per_day:
            raise RejectedError(
                f"{host} had {human_bytes(taken)} accepted within a day; with"
                f" {human_bytes(size)} more it would be over {self.config.share_per_day} % of the"
                f" store's {human_bytes(total)}",
                digest,
            )

    def _record(self, set_dir: Path, manifest: Manifest, digest: str, at: float) -> Catalogue:
        """Catalogue line, then receipt."""
        entry = Entry(
            event="accepted",
            id=manifest.id,
            set=manifest.set,
            at=catalogue_module.timestamp(at),
            manifest_sha256=digest,
            host=manifest.host,
            previous=FIRST_PREVIOUS,
        )
        known = catalogue_module.append(set_dir, entry)
        self._give_receipt(entry)
        return known

    # --- receipts ---

    def _receipt_path(self, set_name: str, backup_id: str) -> Path:
        return self.config.receipts / set_name / f"{backup_id}.json"

    def _give_receipt(self, entry: Entry) -> None:
        self._write_receipt(
            Receipt(
                id=entry.id,
                set=entry.set,
                host=entry.host,
                status=ACCEPTED,
                reason=None,
                manifest_sha256=entry.manifest_sha256,
                accepted_at=entry.at,
            )
        )

    def _write_receipt(self, receipt: Receipt) -> None:
        directory = self.config.receipts / receipt.set
        make_directory(directory)
        write_durably(self._receipt_path(receipt.set, receipt.id), receipts.encode(receipt))

    def _drop_receipts(self) -> None:
        """Receipts of what is not in the store go when they are old enough."""
        try:
            names = store.set_names(self.config.receipts)
        except ToolError as problem:
            self._problem(f"receipts: {problem}")
            return
        for name in names:
            try:
                known = catalogue_module.read(self.config.store / name)
                with suppress(FileNotFoundError):
                    store.check_lines(self.config.store / name, known)
                present = known.present()
                for path in (self.config.receipts / name).glob("*.json"):
                    age = self.clock() - path.stat().st_mtime
                    if (
                        path.name[: -len(".json")] not in present
                        and age > self.config.receipts_min_age
                    ):
                        path.unlink()
            except (ToolError, OSError) as problem:
                self._problem(f"receipts of set {name}: {problem}")

    # --- drill reports ---

    def _take_report(self, source: UploadSource, inbox: int, name: str) -> None:
        upload = _open_directory(inbox, name)
        try:
            _check_names(upload, (REPORT_NAME,))
            raw = _read_small(upload, REPORT_NAME, MAX_REPORT_BYTES)
        finally:
            os.close(upload)
        report = _report(raw, name)
        set_name = report["set"]
        if set_name not in {item.set for item in self.sources if item.set is not None}:
            raise RejectedError(f"the report is about set {set_name}, which has no host here")
        _check_day(name, self.clock())
        set_dir = self.config.store / set_name
        make_directory(set_dir)
        drills = set_dir / store.DRILLS_NAME
        make_directory(drills)
        known = self._settled(set_dir)
        target = drills / f"{name}.json"
        if known.has_drill(name) or target.exists():
            raise RejectedError("a drill of this id was reported before")
        recent = sum(
            manifest_module.id_host(path.name[: -len(".json")]) == source.host
            and self.clock() - path.stat().st_mtime < DAY
            for path in drills.glob(f"*-{source.host}.json")
        )
        if recent >= self.config.uploads_per_day:
            raise RejectedError(
                f"{source.host} reported {recent} drills of {set_name} within a day, the limit is"
                f" {self.config.uploads_per_day}"
            )
        backup_id = report.get("backup_id")
        if backup_id is not None and backup_id not in known.accepted():
            raise RejectedError(
                f"the report is about {set_name}/{backup_id}, which was never accepted"
            )
        write_durably(target, raw, 0o400)
        self._record_drill(set_dir, known, name, report, self.clock())
        self.outcome.drills.append(f"{set_name}/{store.DRILLS_NAME}/{name}")
        self.output.step(
            f"drill: {set_name}/{backup_id or '(no backup)'}: {report['verdict']}, level"
            f" {report['level']}, by {source.host}"
        )

    def _record_drill(
        self, set_dir: Path, known: Catalogue, drill_id: str, report: dict[str, Any], at: float
    ) -> Catalogue:
        """The line of a stored report. One that drilled no backup has no line: there is nothing to
        say it of.
        """
        accepted = known.accepted().get(str(report.get("backup_id")))
        if accepted is None:
            return known
        entry = Entry(
            event="drilled",
            id=accepted.id,
            set=accepted.set,
            at=catalogue_module.timestamp(at),
            manifest_sha256=accepted.manifest_sha256,
            host=manifest_module.id_host(drill_id),
            previous=FIRST_PREVIOUS,
            drill_id=drill_id,
            level=str(report["level"]),
            verdict=str(report["verdict"]),
        )
        return catalogue_module.append(set_dir, entry)


def run(
    config: ServerConfig,
    output: Output,
    clock: Callable[[], float] = time.time,
    rebuild: str | None = None,
) -> Outcome:
    """Accept everything that is complete, with `rebuild` after the lines that this set lacks were
    written. Raises UsageError when there is no such set, NotNow when another run is at work: it
    takes what it still sees, and the timer starts the next one.
    """
    with ExitStack() as held:
        try:
            check_owner(config.store)
            held.enter_context(locked(config.store / store.LOCK_NAME))
        except OSError as problem:
            raise ToolError(
                f"{config.store}: the store cannot be written ({problem.strerror}); run as the user"
                " redis-backup"
            ) from None
        return Acceptor(config, output, clock, rebuild).run()


def _is_id_of(name: str, host: str) -> bool:
    return is_backup_id(name) and manifest_module.id_host(name) == host


def _check_day(upload_id: str, now: float) -> None:
    """An id names a moment of the last or next day by our clock: nothing can be slipped into the
    past or the future.
    """
    try:
        moment = manifest_module.id_time(upload_id)
    except ToolError as problem:
        raise RejectedError(str(problem)) from None
    if abs(moment - now) > DAY:
        raise RejectedError(
            f"the time of its id is more than a day off the backup server's clock"
            f" ({catalogue_module.timestamp(now)}): set the clocks right"
        )


def _not_theirs(inbox: int) -> set[str]:
    """The directory that a file system of its own has at its top, which root alone can enter."""
    with suppress(FileNotFoundError):
        if os.stat(LOST, dir_fd=inbox, follow_symlinks=False).st_uid != os.geteuid():
            return {LOST}
    return set()


def _names(inbox: int, name: str) -> list[str]:
    descriptor = _open_directory(inbox, name)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)


def _check_names(upload: int, expected: tuple[str, ...]) -> None:
    """That an open upload holds these files and nothing else but what a killed transfer left.
    Raises RejectedError.
    """
    names = sorted(entry for entry in os.listdir(upload) if not _ARRIVING.fullmatch(entry))
    if names != sorted(expected):
        raise RejectedError(
            f"holds {', '.join(_shown(entry) for entry in names)[:200]};"
            f" exactly {' and '.join(expected)} {'are' if len(expected) > 1 else 'is'} expected"
        )


def _touched(inbox: int, name: str, status: os.stat_result) -> float:
    """When an upload last changed (unix seconds, our clock): ctime, which the sender cannot
    choose.
    """
    newest = status.st_ctime
    descriptor = _open_directory(inbox, name)
    try:
        for entry in os.listdir(descriptor):
            with suppress(FileNotFoundError):
                newest = max(
                    newest, os.stat(entry, dir_fd=descriptor, follow_symlinks=False).st_ctime
                )
    finally:
        os.close(descriptor)
    return newest


def _open_directory(inbox: int, name: str) -> int:
    """A directory, opened without following a link. Raises RejectedError."""
    try:
        with _replaceable():
            return os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inbox
            )
    except OSError as problem:
        raise RejectedError(f"is not a directory that can be opened ({problem.strerror})") from None


def _manifest_digest(inbox: int, name: str) -> str | None:
    """The identity of what lies in the inbox, None when it has no manifest that can be read."""
    try:
        upload = _open_directory(inbox, name)
    except RejectedError:
        return None
    try:
        return manifest_module.sha256(_read_small(upload, MANIFEST_NAME, MAX_MANIFEST_BYTES))
    except RejectedError:
        return None
    finally:
        os.close(upload)


def _open_regular(directory: int, name: str) -> int:
    """A regular file, opened without following a link or waiting for a pipe. Raises
    RejectedError.
    """
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError as problem:
        raise RejectedError(
            f"{name}: is not a regular file that can be read ({problem.strerror})"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RejectedError(f"{name}: is not a regular file")
    return descriptor


def _read_small(directory: int, name: str, limit: int) -> bytes:
    with os.fdopen(_open_regular(directory, name), "rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise RejectedError(f"{name}: larger than {limit} bytes")
    return raw


def _copy_file(directory: int, name: str, target: Path, limit: int, digest: str) -> codec.Digest:
    """Copy into a new durable file while hashing. Raises RejectedError when there is more than
    announced.
    """
    with os.fdopen(_open_regular(directory, name), "rb") as file:
        reader = codec.HashingReader(file, limit)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            buffer = bytearray(codec.CHUNK)
            try:
                while count := reader.readinto(buffer):
                    output.write(memoryview(buffer)[:count])
            except codec.TooLongError as problem:
                raise RejectedError(f"{name}: {problem}", digest) from None
            output.flush()
            os.fsync(output.fileno())
    return reader.digest()


def _report(raw: bytes, name: str) -> dict[str, Any]:
    """The report of a drill, as far as the catalogue and `list` rely on it. Raises
    RejectedError.
    """
    report = parse_json(raw, f"{name}/{REPORT_NAME}", RejectedError)
    if not isinstance(report, dict):
        raise RejectedError(f"{name}/{REPORT_NAME}: a JSON object is expected")
    set_name, backup_id = report.get("set"), report.get("backup_id")
    if not isinstance(set_name, str) or not is_name(set_name):
        raise RejectedError(f'{name}/{REPORT_NAME}: "set" is not the name of a set')
    if backup_id is not None and not (isinstance(backup_id, str) and is_backup_id(backup_id)):
        raise RejectedError(f'{name}/{REPORT_NAME}: "backup_id" is not an id')
    for key in ("level", "verdict"):
        value = report.get(key)
        if not isinstance(value, str) or _WORD.fullmatch(value) is None:
            raise RejectedError(f'{name}/{REPORT_NAME}: "{key}" is not a word')
    return report


def _told(problem: Exception) -> str:
    """What went wrong; what nobody thought of with its type, which says more than its text."""
    if isinstance(problem, (ToolError, OSError)):
        return str(problem)
    return f"{type(problem).__name__}: {problem}"[:_REASON_MAX]


def _shown(name: str) -> str:
    return json.dumps(name[:100])[1:-1]
