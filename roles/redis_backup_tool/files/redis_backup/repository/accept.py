"""`redis-backup accept`: what hosts uploaded, checked and copied from the inbox into the store.

An inbox is written by a host that may have been taken over: nothing in it is followed, renamed or
trusted. Every file is copied into a new one while it is hashed, and only the copy is judged.

Order, so that a kill at any point is finished by the next pass: copy and verify in
`<store>/.incoming/` → rename into the store → catalogue line → receipt → removal from the inbox. A
backup in the store without a line is verified again and gets it (or goes to
`<store>/.quarantine/`) before the next is taken into its set, a line without a receipt gets its
receipt, and an upload whose id has a line is only removed. Several without a line are not what a
kill leaves: the catalogue lost them, and nothing is added until somebody looked. (All that an
upload goes through is in this one file, so that its order can be read.)
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ..base.errors import ToolError
from ..base.fields import is_backup_id
from ..base.files import (
    check_owner,
    free_bytes,
    fsync_directory,
    locked,
    make_directory,
    remove_entry,
    remove_tree,
    write_durably,
)
from ..base.output import Output, human_bytes, printable
from ..config.model import ServerConfig, Uploader
from ..config.reader import DAY, load_uploaders
from ..formats import manifest as manifest_module
from ..formats import report as report_module
from ..formats.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, STORED_NAME, Manifest
from ..formats.receipts import REJECTED, Receipt
from ..formats.report import MAX_REPORT_BYTES, REPORT_NAME
from ..transport import zstd
from . import reread, store
from .inbox import (
    RejectedError,
    ReplacedError,
    check_names,
    copy_file,
    manifest_digest,
    names,
    not_theirs,
    open_directory,
    read_small,
    replaceable,
    shown,
    touched,
)
from .ledger import Ledger, Outcome, told
from .limits import Limits, check_day, is_id_of

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
        self.ledger = Ledger(config, output, clock, self.outcome)
        self.limits = Limits(config, clock)
        self.failed: set[tuple[str, str]] = set()
        self.closed: set[str] = set()
        self.looked_at: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self.uploaders: list[Uploader] = []

    def run(self) -> Outcome:
        """Pass over the inboxes until one pass finds nothing complete, or it took long, then finish
        what a killed run began.
        """
        zstd.binary()
        incoming = self.config.store / store.INCOMING_NAME
        make_directory(incoming)
        for left in list(incoming.iterdir()):
            remove_tree(left)
        self.uploaders = load_uploaders(self.config.uploaders_dir)
        if self.rebuild is not None:
            self.ledger.rebuild(self.rebuild)
        end = time.monotonic() + _RUN
        while self._pass() and time.monotonic() < end:
            pass
        for host, count in self.told.items():
            if count > _TOLD_MAX:
                self.output.warn(f"rejected: {host}: {count - _TOLD_MAX} more, not shown")
        self.ledger.heal()
        self.ledger.drop_receipts()
        return self.outcome

    def _tell_rejected(self, host: str, name: str, reason: str) -> None:
        self.told[host] = self.told.get(host, 0) + 1
        if self.told[host] <= _TOLD_MAX:
            self.outcome.rejected.append({"host": host, "id": shown(name), "reason": reason})
            self.output.warn(f"rejected: {host}/{shown(name)}: {reason}")

    # --- passes over the inboxes ---

    def _pass(self) -> bool:
        """One look at every inbox. Returns whether anything complete was found and dealt with."""
        found = False
        for uploader in self.uploaders:
            try:
                inbox = os.open(
                    self.config.inbox / uploader.host,
                    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                )
            except OSError as problem:
                self.ledger.problem(
                    f"{self.config.inbox / uploader.host}: the inbox cannot be opened"
                    f" ({problem.strerror})"
                )
                continue
            turn = time.monotonic() + _TURN
            try:
                for name in sorted(set(os.listdir(inbox)) - not_theirs(inbox)):
                    if uploader.host in self.closed:
                        break
                    if (uploader.host, name) not in self.failed:
                        found = self._look(uploader, inbox, name) or found
                        if time.monotonic() > turn:
                            break
            except OSError as problem:
                self.ledger.problem(f"{self.config.inbox / uploader.host}: {problem}")
            finally:
                os.close(inbox)
        return found

    def _look(self, uploader: Uploader, inbox: int, name: str) -> bool:
        """Deal with one entry of an inbox. Returns whether it was complete (good or not)."""
        try:
            with replaceable():
                status = os.stat(name, dir_fd=inbox, follow_symlinks=False)
            complete = self._is_complete(uploader, inbox, name, status)
            if not complete:
                if self.clock() - touched(inbox, name, status) > self.config.inbox_max_age:
                    with replaceable():
                        remove_entry(inbox, name)
                    self.output.step(
                        f"removed: {uploader.host}/{shown(name)}: incomplete and too old"
                    )
                return False
            if uploader.set is not None and is_id_of(name, uploader.host):
                recent = self.limits.recent(uploader.host, uploader.set)
                if recent >= 2 * self.config.uploads_per_day:
                    # Over the limit it is told so by receipts; those cost room too.
                    self.closed.add(uploader.host)
                    self.ledger.problem(
                        f"{uploader.host}: {recent} uploads within a day, twice the limit:"
                        " its inbox is ignored for now; check whether"
                        f" {uploader.host} was compromised"
                    )
                    return False
            # What gets no receipt is counted by nothing else.
            looked_at = self.looked_at[uploader.host] = self.looked_at.get(uploader.host, 0) + 1
            if looked_at > 2 * self.config.uploads_per_day:
                self.closed.add(uploader.host)
                self.ledger.problem(
                    f"{uploader.host}: {looked_at - 1} entries of its inbox in one run, twice what"
                    " is looked at in a day: the others wait for the next run; check whether"
                    f" {uploader.host} was compromised"
                )
                return False
            self._take(uploader, inbox, name)
            with replaceable():
                remove_entry(inbox, name)
        except ReplacedError:
            # The next pass sees what is there then.
            return False
        except Exception as problem:
            # Ours to solve (room, rights, a broken catalogue, a fault of this tool): the upload
            # stays, the others go on.
            self.failed.add((uploader.host, name))
            self.ledger.problem(f"{uploader.host}/{shown(name)}: not accepted: {told(problem)}")
            return False
        return True

    def _is_complete(
        self, uploader: Uploader, inbox: int, name: str, status: os.stat_result
    ) -> bool:
        if not stat.S_ISDIR(status.st_mode) or not is_backup_id(name):
            return True  # nothing that could become an upload: to be refused at once
        # Sent last, in a transfer of its own, and renamed to this when it is whole.
        return (REPORT_NAME if uploader.kind == "drill" else MANIFEST_NAME) in names(inbox, name)

    def _take(self, uploader: Uploader, inbox: int, name: str) -> None:
        """Accept or reject one complete upload. Raises ToolError or OSError when the fault is
        ours.
        """
        try:
            if not is_backup_id(name):
                raise RejectedError("the name is not an id of the form YYYYMMDDTHHMMSSZ-<host>")
            if manifest_module.id_host(name) != uploader.host:
                raise RejectedError(f"the id is not one of {uploader.host}, whose inbox this is")
            if uploader.set is None:
                self._take_report(uploader, inbox, name)
            else:
                self._take_backup(uploader, uploader.set, inbox, name)
        except RejectedError as problem:
            self._reject(uploader, name, problem)

    def _reject(self, uploader: Uploader, name: str, problem: RejectedError) -> None:
        reason = str(problem)[:_REASON_MAX]
        self._tell_rejected(uploader.host, name, reason)
        if uploader.set is None or not is_id_of(name, uploader.host):
            return  # a receipt under that name could be taken for another host's
        receipt = Receipt(
            id=name,
            set=uploader.set,
            host=uploader.host,
            status=REJECTED,
            reason=printable(reason),
            manifest_sha256=problem.manifest_sha256,
            accepted_at=None,
        )
        self.ledger.write_receipt(receipt)

    # --- backups ---

    def _take_backup(self, uploader: Uploader, set_name: str, inbox: int, name: str) -> None:
        set_dir = self.config.store / set_name
        make_directory(set_dir)
        known = self.ledger.settled(set_dir)
        entry = known.accepted().get(name)
        if entry is not None:
            # An id is accepted once. The receipt of the accepted one stays as it is.
            if not self.ledger.receipt_path(set_name, name).exists():
                self.ledger.give_receipt(entry)
            if manifest_digest(inbox, name) == entry.manifest_sha256:
                self.output.step(f"removed: {uploader.host}/{name}: it is in the store already")
                return
            self._tell_rejected(
                uploader.host, name, "this id was accepted before, with other content"
            )
            return
        if self.ledger.receipt_path(set_name, name).exists():
            # Its receipt stays, and it is not verified again: a host could ask for that for ever.
            self._tell_rejected(uploader.host, name, "an upload of this id was rejected before")
            return
        check_day(name, self.clock())
        recent = self.limits.recent(uploader.host, set_name)
        if recent >= self.config.uploads_per_day:
            raise RejectedError(
                f"{uploader.host} had {recent} uploads accepted or rejected within a day, the limit"
                f" is {self.config.uploads_per_day}"
            )
        work = self.config.store / store.INCOMING_NAME / name
        remove_tree(work)
        work.mkdir(mode=0o700)
        try:
            manifest, digest = self._copy(uploader, set_name, inbox, name, work)
            try:
                reread.verify_set(
                    work,
                    manifest,
                    progress=lambda done, total: self.output.progress(
                        f"verify {name}", done, total
                    ),
                )
            except reread.VerifyError as problem:
                raise RejectedError(str(problem), digest) from None
            for path in (work / STORED_NAME, work / MANIFEST_NAME):
                path.chmod(0o400)
            fsync_directory(work)
            work.rename(set_dir / name)
            fsync_directory(set_dir)
        finally:
            remove_tree(work)
        self.ledger.record(set_dir, manifest, digest, self.clock())
        self.outcome.accepted.append(f"{set_name}/{name}")
        keys = sum(counts.keys for counts in manifest.databases.values())
        self.output.step(
            f"accepted: {set_name}/{name}: {human_bytes(manifest.payload.stored_size)} stored,"
            f" {keys} keys"
        )

    def _copy(
        self, uploader: Uploader, set_name: str, inbox: int, name: str, work: Path
    ) -> tuple[Manifest, str]:
        """Copy manifest and payload into files of our own; the manifest is judged here, the
        payload only by its size and sha256 as it is copied.
        """
        upload = open_directory(inbox, name)
        try:
            check_names(upload, (STORED_NAME, MANIFEST_NAME))
            raw = read_small(upload, MANIFEST_NAME, MAX_MANIFEST_BYTES)
            digest = manifest_module.sha256(raw)
            try:
                manifest = manifest_module.decode(raw, f"{set_name}/{name}/{MANIFEST_NAME}")
            except ToolError as problem:
                raise RejectedError(str(problem), digest) from None
            if (manifest.id, manifest.set, manifest.host) != (name, set_name, uploader.host):
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
            self.limits.check_share(uploader.host, set_name, payload.stored_size, digest)
            free = free_bytes(self.config.store)
            if free < payload.stored_size + self.config.disk_reserve:
                raise ToolError(
                    f"{self.config.store} has {human_bytes(free)} free,"
                    f" {human_bytes(payload.stored_size)} and"
                    f" {human_bytes(self.config.disk_reserve)} in reserve are needed: make room"
                )
            copied = copy_file(upload, STORED_NAME, work / STORED_NAME, payload.stored_size, digest)
            if copied != zstd.Digest(payload.stored_size, payload.stored_sha256):
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

    # --- drill reports ---

    def _take_report(self, uploader: Uploader, inbox: int, name: str) -> None:
        upload = open_directory(inbox, name)
        try:
            check_names(upload, (REPORT_NAME,))
            raw = read_small(upload, REPORT_NAME, MAX_REPORT_BYTES)
        finally:
            os.close(upload)
        report = report_module.decode(raw, f"{name}/{REPORT_NAME}", RejectedError)
        set_name = report["set"]
        if set_name not in {item.set for item in self.uploaders if item.set is not None}:
            raise RejectedError(f"the report is about set {set_name}, which has no host here")
        check_day(name, self.clock())
        set_dir = self.config.store / set_name
        make_directory(set_dir)
        drills = set_dir / store.DRILLS_NAME
        make_directory(drills)
        known = self.ledger.settled(set_dir)
        target = drills / f"{name}.json"
        if known.has_drill(name) or target.exists():
            raise RejectedError("a drill of this id was reported before")
        recent = sum(
            manifest_module.id_host(path.name[: -len(".json")]) == uploader.host
            and self.clock() - path.stat().st_mtime < DAY
            for path in drills.glob(f"*-{uploader.host}.json")
        )
        if recent >= self.config.uploads_per_day:
            raise RejectedError(
                f"{uploader.host} reported {recent} drills of {set_name} within a day, the limit is"
                f" {self.config.uploads_per_day}"
            )
        backup_id = report.get("backup_id")
        if backup_id is not None and backup_id not in known.accepted():
            raise RejectedError(
                f"the report is about {set_name}/{backup_id}, which was never accepted"
            )
        write_durably(target, raw, 0o400)
        self.ledger.record_drill(set_dir, known, name, report, self.clock())
        self.outcome.drills.append(f"{set_name}/{store.DRILLS_NAME}/{name}")
        self.output.step(
            f"drill: {set_name}/{backup_id or '(no backup)'}: {report['verdict']}, level"
            f" {report['level']}, by {uploader.host}"
        )


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
