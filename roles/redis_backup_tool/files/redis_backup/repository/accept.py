"""`redis-backup accept`: what hosts uploaded, checked and taken from the inbox into the store.

One upload of each host at a time is copied and verified, each in a process of its own
(`intake`), at the same time as those of other hosts and outside the store's lock: neither a large
nor a hostile upload keeps another host, or the retention, waiting.

Order, so that a kill at any point is finished by the next run: copy and verify in
`<store>/.incoming/` → by one rename into the store, with its receipt → catalogue line → receipt
for the hosts → removal from the inbox. A backup in the store without a line gets it, and an upload
whose id has a line is only removed.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..base.errors import ToolError
from ..base.fields import is_backup_id
from ..base.files import (
    check_owner,
    free_bytes,
    locked,
    make_directory,
    remove_entry,
    remove_tree,
    write_durably,
)
from ..base.output import Output, human_bytes, printable
from ..base.times import timestamp
from ..config.model import ServerConfig, Uploader
from ..config.reader import DAY, load_uploaders
from ..formats import manifest as manifest_module
from ..formats import receipts
from ..formats import report as report_module
from ..formats.catalogue import Entry
from ..formats.manifest import MANIFEST_NAME, Manifest, Position
from ..formats.receipts import ACCEPTED, DEFERRED, RECEIPT_NAME, REJECTED, Receipt
from ..formats.report import MAX_REPORT_BYTES, REPORT_NAME
from ..transport import zstd
from . import catalogue as catalogue_module
from . import identity, intake, retention, store
from .inbox import (
    RejectedError,
    ReplacedError,
    check_names,
    manifest_digest,
    names,
    not_theirs,
    open_directory,
    read_small,
    replaceable,
    shown,
    told,
    touched,
)
from .intake import Examination, Judgement
from .ledger import Ledger, store_lock
from .limits import Limits, check_day, is_id_of
from .patience import Patience

ACCEPTING_NAME = ".accepting"
# Examinations at the same time, each of another host.
_AT_ONCE = 16
# How often inboxes are looked at while one is at work. Seconds.
_LOOK = 0.5
# Of each host, in one run. More are counted only: a flood of names is no flood of the journal.
_TOLD_MAX = 20
_REASON_MAX = 500
_NO_SET = "unknown"


@dataclass
class Outcome:
    """What a run did: ids as `<set>/<id>`, and what went wrong on our side."""

    accepted: list[str] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    deferred: list[str] = field(default_factory=list)
    drills: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return dict(vars(self))


class Acceptor:
    """One run, the only one at a time. `clock` is unix time in seconds."""

    def __init__(
        self, config: ServerConfig, output: Output, clock: Callable[[], float] = time.time
    ) -> None:
        self.config = config
        self.output = output
        self.clock = clock
        self.outcome = Outcome()
        self.limits = Limits(config, clock)
        self.patience = Patience(config.store)
        self.repository = ""
        self.failed: set[tuple[str, str]] = set()
        self.tried: set[tuple[str, str]] = set()
        self.closed: set[str] = set()
        self.looked_at: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self.uploaders: list[Uploader] = []
        self.examinations: dict[str, Examination] = {}

    def run(self) -> Outcome:
        """Work until no inbox holds anything complete that was not dealt with, then finish what a
        killed run began.
        """
        zstd.binary()
        self.repository = identity.require(self.config)
        incoming = self.config.store / store.INCOMING_NAME
        make_directory(incoming)
        for left in list(incoming.iterdir()):
            remove_tree(left)
        try:
            while True:
                found = self._sweep()
                if self.examinations:
                    self._wait()
                elif not found and not self._try_deferred():
                    break
        finally:
            for examination in self.examinations.values():
                examination.kill()
                remove_tree(examination.work)
        for host, count in self.told.items():
            if count > _TOLD_MAX:
                self.output.warn(f"rejected: {host}: {count - _TOLD_MAX} more, not shown")
        self._finish()
        return self.outcome

    # --- looking into the inboxes ---

    def _sweep(self) -> bool:
        """One look at every inbox: deals with what needs no examination, and begins one where none
        of the host is at work. Returns whether anything was dealt with.
        """
        found = False
        self.uploaders = load_uploaders(self.config.uploaders_dir)
        for uploader in self.uploaders:
            path = self.config.inbox / uploader.host
            try:
                inbox = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as problem:
                self._problem(f"{path}: the inbox cannot be opened ({problem.strerror})")
                continue
            try:
                for name in sorted(set(os.listdir(inbox)) - not_theirs(inbox)):
                    if uploader.host in self.closed or uploader.host in self.examinations:
                        break
                    key = (uploader.host, name)
                    if key not in self.failed and not self.patience.is_deferred(*key):
                        found = self._look(uploader, inbox, name) or found
            except OSError as problem:
                self._problem(f"{path}: {problem}")
            finally:
                os.close(inbox)
        return found

    def _look(self, uploader: Uploader, inbox: int, name: str) -> bool:
        """Deal with one entry of an inbox. Returns whether it was complete (good or not)."""
        with self._ours_to_solve(uploader, name):
            with replaceable():
                status = os.stat(name, dir_fd=inbox, follow_symlinks=False)
            if not self._is_complete(uploader, inbox, name, status):
                if self.clock() - touched(inbox, name, status) > self.config.inbox_max_age:
                    with replaceable():
                        remove_entry(inbox, name)
                    self.output.step(
                        f"removed: {uploader.host}/{shown(name)}: incomplete and too old"
                    )
                return False
            if not self._within_limits(uploader, name):
                return False
            try:
                if not is_backup_id(name):
                    raise RejectedError("the name is not an id of the form YYYYMMDDTHHMMSSZ-<host>")
                if manifest_module.id_host(name) != uploader.host:
                    raise RejectedError(
                        f"the id is not one of {uploader.host}, whose inbox this is"
                    )
                arrived = touched(inbox, name, status)
                if uploader.set is None:
                    self._take_report(uploader, inbox, name, arrived)
                elif not self._is_known(uploader, uploader.set, inbox, name):
                    check_day(name, arrived)
                    self._check_count(uploader.host, uploader.set)
                    self._examine(uploader, name, alone=False)
                    return True
            except RejectedError as problem:
                self._reject(uploader, name, str(problem), problem.manifest_sha256)
            with replaceable():
                remove_entry(inbox, name)
            return True
        return False

    @contextmanager
    def _ours_to_solve(self, uploader: Uploader, name: str) -> Iterator[None]:
        """What goes wrong here is ours to solve (room, rights, a broken catalogue, a fault of this
        tool): the upload stays, the others go on.
        """
        try:
            yield
        except ReplacedError:
            pass  # The next look sees what is there then.
        except Exception as problem:
            self.failed.add((uploader.host, name))
            self._problem(f"{uploader.host}/{shown(name)}: not accepted: {told(problem)}")

    def _is_complete(
        self, uploader: Uploader, inbox: int, name: str, status: os.stat_result
    ) -> bool:
        if not stat.S_ISDIR(status.st_mode) or not is_backup_id(name):
            return True  # nothing that could become an upload: to be refused at once
        # Sent last, in a transfer of its own, and renamed to this when it is whole.
        return (REPORT_NAME if uploader.kind == "drill" else MANIFEST_NAME) in names(inbox, name)

    def _within_limits(self, uploader: Uploader, name: str) -> bool:
        host = uploader.host
        if uploader.set is not None and is_id_of(name, host):
            recent = self.limits.recent(host, uploader.set)
            if recent >= 2 * self.config.uploads_per_day:
                # Over the limit it is told so by receipts; those cost room too.
                self._close(host, f"{recent} uploads within a day, twice the limit")
                return False
        # What gets no receipt is counted by nothing else.
        looked_at = self.looked_at[host] = self.looked_at.get(host, 0) + 1
        if looked_at > 2 * self.config.uploads_per_day:
            self._close(
                host,
                f"{looked_at - 1} entries of its inbox in one run, twice what is looked at in a"
                " day",
            )
            return False
        return True

    def _close(self, host: str, seen: str) -> None:
        self.closed.add(host)
        self._problem(
            f"{host}: {seen}: its inbox is ignored for now; check whether {host} was compromised"
        )

    def _check_count(self, host: str, set_name: str) -> None:
        recent = self.limits.recent(host, set_name)
        if recent >= self.config.uploads_per_day:
            raise RejectedError(
                f"{host} had {recent} uploads accepted or rejected within a day, the limit is"
                f" {self.config.uploads_per_day}"
            )

    def _is_known(self, uploader: Uploader, set_name: str, inbox: int, name: str) -> bool:
        """Whether this upload was dealt with before: it is only removed then."""
        entry = catalogue_module.read(self.config.store / set_name).accepted().get(name)
        if entry is not None:
            # An id is accepted once. The receipt of the accepted one stays as it is.
            if manifest_digest(inbox, name) == entry.manifest_sha256:
                self.output.step(f"removed: {uploader.host}/{name}: it is in the store already")
            else:
                self._tell_rejected(
                    uploader.host, name, "this id was accepted before, with other content"
                )
            return True
        status = self._status(set_name, name)
        if status == REJECTED:
            # Its receipt stays, and it is not verified again: a host could ask for that for ever.
            self._tell_rejected(uploader.host, name, "an upload of this id was rejected before")
        return status == REJECTED

    def _status(self, set_name: str, name: str) -> str | None:
        path = self._receipt_path(set_name, name)
        with suppress(FileNotFoundError, ToolError):
            return receipts.decode(path.read_bytes(), str(path)).status
        return None

    # --- examinations ---

    def _examine(self, uploader: Uploader, name: str, *, alone: bool) -> None:
        while len(self.examinations) >= _AT_ONCE:
            self._wait()
        self.examinations[uploader.host] = Examination(
            self.config,
            uploader,
            name,
            budget=self.patience.budget(uploader.host, name),
            alone=alone,
            clock=self.clock,
        )

    def _wait(self) -> None:
        """Until an examination has ended, and what it found is carried out; a moment at most."""
        readers = {item.reader: item for item in self.examinations.values()}
        for reader in select.select(list(readers), [], [], _LOOK)[0]:
            examination = readers[reader]
            del self.examinations[examination.uploader.host]
            try:
                with self._ours_to_solve(examination.uploader, examination.name):
                    self._conclude(examination, examination.result())
            finally:
                remove_tree(examination.work)

    def _conclude(self, examination: Examination, found: Judgement) -> None:
        uploader, name = examination.uploader, examination.name
        set_name = str(uploader.set)
        if found.status == intake.FAILED:
            raise ToolError(found.reason)
        if found.status == intake.GONE:
            self.patience.forget(uploader.host, name)
            return
        if found.status == intake.DEFERRED:
            self._defer(uploader, set_name, name, found.reason)
            return
        if found.status == intake.REJECTED:
            self.patience.forget(uploader.host, name)
            self._reject(uploader, name, found.reason, found.manifest_sha256)
        elif found.manifest is not None and found.manifest_sha256 is not None:
            self._accept(set_name, examination.work, found, found.manifest, found.manifest_sha256)
            self.patience.accepted(uploader.host, name, found.cpu)
        self._remove(uploader.host, name)

    def _remove(self, host: str, name: str) -> None:
        inbox = os.open(
            self.config.inbox / host, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        )
        try:
            with replaceable():
                remove_entry(inbox, name)
        finally:
            os.close(inbox)

    def _accept(
        self, set_name: str, work: Path, found: Judgement, manifest: Manifest, digest: str
    ) -> None:
        """The moment under the store's lock."""
        with store_lock(self.config.store):
            ledger = self._open(set_name)
            if manifest.id in ledger.known.accepted():
                return
            before = ledger.known.newest()
            event = Entry(
                event="accepted",
                id=manifest.id,
                set=set_name,
                at=timestamp(self.clock()),
                manifest_sha256=digest,
                host=manifest.host,
                kind=manifest.kind,
                level="form",
                fork_time=manifest.fork_time,
                keys=manifest.keys,
                size=manifest.payload.size,
                stored_size=manifest.payload.stored_size,
                shrunk_from=retention.shrunk_from(
                    before, manifest.keys, manifest.payload.size, self.config.shrink_limit
                ),
            )
            position = None
            if manifest.repl_id is not None and manifest.repl_offset is not None:
                position = Position(manifest.repl_id, manifest.repl_offset)
            ledger.accept(
                work,
                Receipt(
                    id=manifest.id,
                    set=set_name,
                    host=manifest.host,
                    status=ACCEPTED,
                    repository=self.repository,
                    manifest_sha256=digest,
                    event=event,
                    position=position,
                    warnings=found.warnings,
                ),
            )
        where = f"{set_name}/{manifest.id}"
        self.outcome.accepted.append(where)
        self.output.step(
            f"accepted: {where}: {human_bytes(manifest.payload.stored_size)} stored,"
            f" {manifest.keys} keys"
        )
        if event.shrunk_from is not None and before is not None:
            self.output.warn(
                f"{where}: {manifest.keys} keys in {human_bytes(manifest.payload.size)}, where"
                f" {before.id} had {before.keys} in {human_bytes(before.size or 0)}: marked, until"
                f" `redis-backup acknowledge {where}`"
            )

    def _open(self, set_name: str) -> Ledger:
        ledger = Ledger(self.config, set_name)
        for event in ledger.finished:
            self.outcome.finished.append(f"{set_name}/{event.id}")
            self.output.step(f"finished: {set_name}/{event.id}: {event.event}, had no line")
        return ledger

    def _defer(self, uploader: Uploader, set_name: str, name: str, reason: str) -> None:
        self.patience.defer(uploader.host, name, self.clock())
        self.outcome.deferred.append(f"{set_name}/{name}")
        self.output.warn(f"deferred: {set_name}/{name}: {reason}; it is tried again, alone")
        self._write_receipt(
            Receipt(
                id=name,
                set=set_name,
                host=uploader.host,
                status=DEFERRED,
                repository=self.repository,
                reason=reason,
            )
        )

    def _try_deferred(self) -> bool:
        """Begin with the one deferred upload that waits longest and was not tried in this run.
        Returns whether there is one.
        """
        uploaders = {item.host: item for item in self.uploaders}
        for item in self.patience.deferred():
            key = (item.host, item.id)
            if key in self.tried or key in self.failed:
                continue
            self.tried.add(key)
            uploader = uploaders.get(item.host)
            if uploader is None or not (self.config.inbox / item.host / item.id).is_dir():
                self.patience.forget(*key)
                continue
            self._examine(uploader, item.id, alone=True)
            return True
        return False

    # --- reports of drills ---

    def _take_report(self, uploader: Uploader, inbox: int, name: str, arrived: float) -> None:
        upload = open_directory(inbox, name)
        try:
            check_names(upload, (REPORT_NAME,))
            raw = read_small(upload, REPORT_NAME, MAX_REPORT_BYTES)
        finally:
            os.close(upload)
        digest = manifest_module.sha256(raw)
        report = report_module.decode(raw, f"{name}/{REPORT_NAME}", RejectedError)
        set_name = report["set"]
        if set_name not in {item.set for item in self.uploaders if item.set is not None}:
            raise RejectedError(
                f"the report is about set {set_name}, which has no host here", digest
            )
        check_day(name, arrived)
        if report["repository"] not in (None, self.repository):
            raise RejectedError(
                f"the report is about repository {report['repository']}, this one is"
                f" {self.repository}",
                digest,
            )
        if free_bytes(self.config.store) < self.config.disk_reserve:
            raise ToolError(
                f"{self.config.store} has less than {human_bytes(self.config.disk_reserve)} free,"
                " the reserve: make room"
            )
        with store_lock(self.config.store):
            ledger = self._open(set_name)
            if name in store.drill_ids(ledger.set_dir):
                self._report_again(ledger, uploader.host, name, digest)
                return
            self._check_report(ledger, uploader.host, report, digest)
            work = self.config.store / store.INCOMING_NAME / name
            remove_tree(work)
            work.mkdir(mode=0o700)
            try:
                write_durably(work / REPORT_NAME, raw, 0o400)
                receipt = ledger.take_report(
                    work, self._report_receipt(ledger, uploader.host, name, report, digest)
                )
            finally:
                remove_tree(work)
        self._write_receipt(receipt)
        self.outcome.drills.append(f"{set_name}/{store.DRILLS_NAME}/{name}")
        self.output.step(
            f"drill: {set_name}/{report['backup_id'] or '(no backup)'}: {report['verdict']}, level"
            f" {report['level']}, by {uploader.host}"
        )

    def _report_again(self, ledger: Ledger, host: str, name: str, digest: str) -> None:
        """A report whose id is in the store: of a run that was killed before it could tell the
        drill host, or another one. The receipt of the accepted one stays as it is.
        """
        receipt = store.drill_receipt(ledger.set_dir, name)
        if receipt.manifest_sha256 != digest:
            self._tell_rejected(
                host, name, "a drill of this id was reported before, with other content"
            )
            return
        self._write_receipt(receipt)
        self.output.step(f"removed: {host}/{name}: it is in the store already")

    def _check_report(self, ledger: Ledger, host: str, report: dict[str, Any], digest: str) -> None:
        known, set_dir = ledger.known, ledger.set_dir
        recent = sum(
            manifest_module.id_host(drill_id) == host
            and self.clock() - (set_dir / store.DRILLS_NAME / drill_id).stat().st_mtime < DAY
            for drill_id in store.drill_ids(set_dir)
            if drill_id.endswith(f"-{host}")
        )
        if recent >= self.config.uploads_per_day:
            raise RejectedError(
                f"{host} reported {recent} drills of {set_dir.name} within a day, the limit is"
                f" {self.config.uploads_per_day}",
                digest,
            )
        backup_id = report["backup_id"]
        if backup_id is None:
            return
        accepted = known.accepted().get(backup_id)
        if accepted is None:
            raise RejectedError(
                f"the report is about {set_dir.name}/{backup_id}, which was never accepted", digest
            )
        if report["manifest_sha256"] not in (None, accepted.manifest_sha256):
            raise RejectedError(
                f"the report is about another {set_dir.name}/{backup_id}: the sha256 of its"
                f" manifest is {report['manifest_sha256']}, the accepted one's"
                f" {accepted.manifest_sha256}",
                digest,
            )

    def _report_receipt(
        self, ledger: Ledger, host: str, name: str, report: dict[str, Any], digest: str
    ) -> Receipt:
        event = None
        if report["backup_id"] is not None:
            event = replace(
                ledger.about(report["backup_id"], "drilled", self.clock()),
                host=host,
                drill_id=name,
                level=report["level"],
                verdict=report["verdict"],
            )
        return Receipt(
            id=name,
            set=report["set"],
            host=host,
            status=ACCEPTED,
            repository=self.repository,
            manifest_sha256=digest,
            event=event,
        )

    # --- telling ---

    def _problem(self, text: str) -> None:
        """Something went wrong on our side: told once, and in the outcome."""
        if text not in self.outcome.problems:
            self.outcome.problems.append(text)
            self.output.warn(text)

    def _tell_rejected(self, host: str, name: str, reason: str) -> None:
        self.told[host] = self.told.get(host, 0) + 1
        if self.told[host] <= _TOLD_MAX:
            self.outcome.rejected.append({"host": host, "id": shown(name), "reason": reason})
            self.output.warn(f"rejected: {host}/{shown(name)}: {reason}")

    def _reject(self, uploader: Uploader, name: str, reason: str, digest: str | None) -> None:
        reason = reason[:_REASON_MAX]
        self._tell_rejected(uploader.host, name, reason)
        if not is_id_of(name, uploader.host):
            return  # a receipt under that name could be taken for another host's
        self._write_receipt(
            Receipt(
                id=name,
                # The set of a report is only the word of its sender.
                set=uploader.set or _NO_SET,
                host=uploader.host,
                status=REJECTED,
                repository=self.repository,
                reason=printable(reason),
                manifest_sha256=digest,
            )
        )

    def _receipt_path(self, set_name: str, upload_id: str) -> Path:
        return self.config.receipts / set_name / f"{upload_id}.json"

    def _write_receipt(self, receipt: Receipt) -> None:
        """Leave a receipt where its host reads it; a drill host reads the store."""
        uploader = next(item for item in self.uploaders if item.host == receipt.host)
        if uploader.set is None:
            directory = self.config.store / store.REPORT_RECEIPTS_NAME
        else:
            directory = self.config.receipts / receipt.set
        make_directory(directory)
        write_durably(directory / f"{receipt.id}.json", receipts.encode(receipt))

    # --- the end of a run ---

    def _finish(self) -> None:
        """Finish in every set what a killed run began, and drop the receipts that are old enough of
        what is not in the store.
        """
        for name in store.set_names(self.config.store):
            try:
                with store_lock(self.config.store):
                    ledger = self._open(name)
                    self._complete_receipts(ledger)
                self._drop_receipts(self.config.receipts / name, ledger.known.present())
            except Exception as problem:
                self._problem(f"set {name}: {told(problem)}")
        self._drop_receipts(self.config.store / store.REPORT_RECEIPTS_NAME, {})

    def _complete_receipts(self, ledger: Ledger) -> None:
        """The copies for the hosts, where a kill kept one from being made."""
        there: set[str] = set()
        with suppress(FileNotFoundError):
            there = set(os.listdir(self.config.receipts / ledger.set_dir.name))
        for backup_id in ledger.known.present():
            path = ledger.set_dir / backup_id / RECEIPT_NAME
            if f"{backup_id}.json" not in there and path.exists():
                ledger.publish(backup_id)

    def _drop_receipts(self, directory: Path, present: Any) -> None:
        with suppress(FileNotFoundError):
            for path in directory.glob("*.json"):
                age = self.clock() - path.stat().st_mtime
                if path.name[: -len(".json")] not in present and age > self.config.receipts_min_age:
                    path.unlink()


def run(config: ServerConfig, output: Output, clock: Callable[[], float] = time.time) -> Outcome:
    """Accept everything that is complete. Raises ToolError when the store is not the repository of
    this server, NotNow when another run is at work: it takes what it still sees, and the timer
    starts the next one.
    """
    with ExitStack() as held:
        try:
            check_owner(config.store)
            # Before the lock, which is a file in it: into a directory whose file system is not
            # mounted nothing is written.
            identity.begin(config, clock())
            identity.require(config)
            held.enter_context(locked(config.store / ACCEPTING_NAME))
        except OSError as problem:
            raise ToolError(
                f"{config.store}: the store cannot be written ({problem.strerror}); run as the user"
                " redis-backup"
            ) from None
        return Acceptor(config, output, clock).run()
