"""The restore drill: fetch a backup from the repository, restore it in a sandbox, compare, report.

Levels in rising order, each reached only over the ones before it:

* ``bytes``: the stored file has the manifest's sha256, the manifest that of the catalogue;
* ``form``: the RDB is well-formed from its first byte to its last, checksum included;
* ``counts``: keys and expires of every database, and all that the header says, are the manifest's;
* ``load``: a server of the manifest's engine and version loaded it all: same INFO keyspace;
* ``values``: all that it then saves again is what was backed up, record by record.

A drill that could not run is a failed drill: whatever happens ends in a report, which is kept here
and sent to the backup server.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..base import files
from ..base.errors import ToolError
from ..base.output import Output, human_bytes
from ..config.model import DrillConfig
from ..digest.comparison import Raw, Stage, compare
from ..formats import identity, receipts
from ..formats import manifest as manifests
from ..formats.agreement import counts_of
from ..formats.catalogue import CATALOGUE_NAME
from ..formats.catalogue import parse as parse_catalogue
from ..formats.identity import REPOSITORY_NAME
from ..formats.manifest import MANIFEST_NAME, Counts, Manifest
from ..formats.receipts import RECEIPT_NAME
from ..rdb import walker
from ..repository import reread
from ..sandbox.client import Client
from ..sandbox.configuration import checks_values, server_config, server_version
from ..sandbox.errors import NotConfinedError
from ..sandbox.launchers import Launcher, ProcessLauncher, UnitLauncher
from ..sandbox.server import SandboxServer
from ..transport import rsync
from . import assertions
from .assertions import Assertion
from .decisions import (
    choose,
    compare_counts,
    describe,
    impossible_pair,
    judge_freshness,
    memory_available,
    release,
    targets,
    time_allowed,
)
from .questions import ask
from .report import Outcome, Record, conclude, sentence
from .stopping import Stopped, locked, signals_end_drills

# How long a drill waits for another one on this host before it counts as failed. Seconds.
LOCK_WAIT = 900.0
# Room that stays free on the drill's file system, and what a server needs beside its data. Bytes.
DISK_RESERVE = 64 * 2**20
MEMORY_RESERVE = 64 * 2**20
# A line is some 600 bytes. Bytes.
_MAX_CATALOGUE = 256 * 2**20


def run(
    config: DrillConfig,
    target: str | None,
    output: Output,
    *,
    lock_wait: float = LOCK_WAIT,
) -> list[Outcome]:
    """Drill `target` (`<id>` or `<set>/<id>`), or for None the newest backup of every set.

    Returns one outcome per drill, failed ones too. Raises UsageError for a target that cannot be
    used. `lock_wait` is seconds.
    """
    drills = [
        _Drill(config, set_name, backup_id, output)
        for set_name, backup_id in targets(config, target)
    ]
    outcomes = []
    with signals_end_drills() as told:
        for drill in drills:
            try:
                with told.at_once(), locked(config.work, lock_wait):
                    drill.run()
            except Stopped as stopped:
                drill.record.reason = str(stopped)
            except Exception as problem:
                # A fault of this tool too is a failed drill with a report, and of one set only.
                drill.record.reason = sentence(problem)
            outcomes.append(conclude(config, drill.record, output))
    return outcomes


class _Drill:
    """One backup on its way up the levels. Raises ToolError or OSError at what is off."""

    def __init__(
        self, config: DrillConfig, set_name: str, backup_id: str | None, output: Output
    ) -> None:
        self.record = Record(set=set_name, backup_id=backup_id)
        self._config = config
        # Whoever names a backup knows how old it is; the newest one must not be older than this.
        self._max_age = config.max_age if backup_id is None else None
        self._output = output
        self._questions: tuple[Assertion, ...] = ()
        self._fetched = config.work / "fetch"
        self._began = 0.0
        launcher: Launcher
        if config.unit is None:
            launcher = ProcessLauncher(config.work / "sandbox")
        else:
            launcher = UnitLauncher(config.unit)
        self._server = SandboxServer(config.work / "sandbox", launcher)

    def run(self) -> None:
        """All levels. Leftovers are removed before and after."""
        self._began = time.monotonic()
        set_name = self.record.set
        self._questions = assertions.parse(
            list(self._config.sets[set_name].assertions), f"{self._config.path}: set {set_name}"
        )
        try:
            self._clear()
            with self._timed("fetch"):
                manifest, where = self._fetch_manifest()
            server = self._matching_server(manifest, where)
            self._check_room(manifest)
            with self._timed("fetch"):
                self._output.step(
                    f"{self._name(manifest)}: fetch {human_bytes(manifest.payload.stored_size)}"
                )
                payload = manifest.payload
                self._fetch(f"{self._name(manifest)}/{payload.stored_name}", payload.stored_size)
            with self._timed("verify"):
                self._unpack(manifest)
            self._load(manifest, server)
        finally:
            self._clear()

    def _clear(self) -> None:
        self._server.clear()
        files.remove_tree(self._fetched)
        self._fetched.mkdir(mode=0o700)

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        spent = self.record.seconds.get(phase, 0.0) + time.monotonic() - started
        self.record.seconds[phase] = spent

    @staticmethod
    def _name(manifest: Manifest) -> str:
        return f"{manifest.set}/{manifest.id}"

    def _fetch(self, path: str, limit: int) -> Path:
        """One file of the repository, of at most `limit` bytes. Errors name it as
        `<set>/<id>/<file>`.
        """
        target = self._config.transport
        try:
            rsync.fetch(
                target,
                str(target.store_module),
                path,
                self._fetched,
                limit,
                notify=self._output.step,
            )
        except rsync.TransportError as problem:
            if "No such file" in str(problem):
                raise _AbsentError(f"{path}: is not in the repository") from None
            raise ToolError(f"{path}: cannot be fetched: {problem}") from None
        local = self._fetched / path.rpartition("/")[2]
        if not local.is_file():
            raise _AbsentError(f"{path}: is not a file in the repository")
        return local

    def _fetch_manifest(self) -> tuple[Manifest, str]:
        """Choose the backup and learn what it claims to be, before any payload moves."""
        record = self.record
        record.repository = self._repository()
        try:
            raw = self._fetch(f"{record.set}/{CATALOGUE_NAME}", _MAX_CATALOGUE).read_bytes()
        except _AbsentError as problem:
            raise ToolError(f"{problem}: no backup of set {record.set} was accepted yet") from None
        entry = choose(parse_catalogue(raw, record.set), record.backup_id)
        record.backup_id = entry.id
        record.manifest_sha256 = entry.manifest_sha256
        where = f"{record.set}/{entry.id}/{MANIFEST_NAME}"
        self._output.step(f"{record.set}/{entry.id}: chosen, accepted {entry.at}")
        raw = self._fetch(where, manifests.MAX_MANIFEST_BYTES).read_bytes()
        if manifests.sha256(raw) != entry.manifest_sha256:
            raise ToolError(
                f"{where}: sha256 is {manifests.sha256(raw)}, the catalogue says"
                f" {entry.manifest_sha256}: the manifest was changed after it was accepted"
            )
        manifest = manifests.decode(raw, where)
        if (manifest.set, manifest.id) != (record.set, entry.id):
            raise ToolError(f"{where}: is the manifest of {manifest.set}/{manifest.id}")
        record.manifest = manifest
        receipt = f"{record.set}/{entry.id}/{RECEIPT_NAME}"
        raw = self._fetch(receipt, receipts.MAX_RECEIPT_BYTES).read_bytes()
        record.warnings = receipts.decode(raw, receipt).warnings
        record.freshness = judge_freshness(
            manifest.freshness, record.started - manifest.fork_time, self._max_age
        )
        impossible = impossible_pair(manifest)
        if impossible is not None:
            raise ToolError(f"{where}: {impossible}")
        return manifest, where

    def _repository(self) -> str:
        """The id of the repository, which is the one that this host was deployed with."""
        try:
            raw = self._fetch(REPOSITORY_NAME, manifests.MAX_MANIFEST_BYTES).read_bytes()
        except _AbsentError:
            raise ToolError(
                "the backup server's store has no repository in it: is its file system mounted?"
            ) from None
        found = identity.decode(raw, REPOSITORY_NAME).id
        if self._config.repository not in (None, found):
            raise ToolError(
                f"the backup server keeps repository {found}, this host was deployed with"
                f" {self._config.repository}: is the right file system mounted there? If the"
                " repository was replaced on purpose, deploy this host again"
            )
        return found

    def _matching_server(self, manifest: Manifest, where: str) -> str:
        """The binary of the same engine and release: another one proves nothing about a restore."""
        wanted = (manifest.engine, release(manifest.server_version))
        binary = self._config.servers.get(manifest.engine)
        if binary is None:
            raise ToolError(
                f"{where}: the backup is of {_engine(*wanted)},"
                f" but this drill host has no {manifest.engine} server configured"
            )
        installed = server_version(binary)
        if installed != wanted:
            raise ToolError(
                f"{where}: the backup is of {_engine(*wanted)}, but {binary} on this drill host is"
                f" {_engine(*installed)}; install the same release there"
            )
        return binary

    def _check_room(self, manifest: Manifest) -> None:
        """Refuse before the download what cannot end well, with the figures."""
        payload = manifest.payload
        where = f"{self._name(manifest)}/{payload.stored_name}"
        free = files.free_bytes(self._config.work)
        needed = payload.stored_size + payload.size + DISK_RESERVE
        if needed > free:
            raise ToolError(
                f"{where}: no room for the drill: {self._config.work} has {human_bytes(free)} free,"
                f" {human_bytes(needed)} are needed (stored, unpacked, a reserve)"
            )
        # An RDB is rarely larger than its data in memory, so this is about the least that it takes.
        available, needed = memory_available(), payload.size + MEMORY_RESERVE
        if available is not None and needed > available:
            raise ToolError(
                f"{where}: no memory for the drill: {human_bytes(available)} are available,"
                f" {human_bytes(needed)} are the least that it takes"
            )

    def _unpack(self, manifest: Manifest) -> None:
        name = self._name(manifest)
        self._output.step(f"{name}: verify {human_bytes(manifest.payload.size)}")
        with self._levels():
            reread.unpack(self._fetched, manifest, self._server.dump)
        self.record.level = "bytes"
        # What is proven is not needed a second time, its room may be.
        (self._fetched / manifest.payload.stored_name).unlink()

    def _walk(self, manifest: Manifest, raw: Raw) -> None:
        """While the server loads: where every record begins and ends, and the sum of them. The
        server computes the checksum, and looks into values where it is one that does.
        """
        deep = not checks_values(manifest.engine, release(manifest.server_version))
        with self._levels():
            reread.walk(
                self._server.dump,
                manifest,
                progress=self._progress("walk", manifest),
                budget=self._budget("walk", manifest),
                digester=raw if deep else None,
                skimmer=None if deep else raw,
                checksum=False,
            )
        self.record.level = "counts"

    def _look_closer(self, manifest: Manifest) -> None:
        """Everything that can be said of the file alone. Raises VerifyError."""
        with self._levels():
            reread.walk(
                self._server.dump,
                manifest,
                progress=self._progress("walk", manifest),
                budget=self._budget("walk", manifest),
            )

    def _progress(self, what: str, manifest: Manifest) -> Callable[[int, int], None]:
        """Shows how far it is."""
        size, label = manifest.payload.size, f"{what} {self._name(manifest)}"
        return lambda done, _total: self._output.progress(label, min(done, size), size)

    def _budget(self, what: str, manifest: Manifest) -> Callable[[], None]:
        """Ends what takes longer than any honest backup, whatever is in it. Raises OverdueError."""
        size = manifest.payload.size
        allowed = time_allowed(size)
        deadline = time.monotonic() + allowed

        def enough() -> None:
            if time.monotonic() > deadline:
                raise OverdueError(
                    f"{what} {self._name(manifest)} takes more than {allowed:.0f} s for"
                    f" {human_bytes(size)}: a file that was made to take long, or a host that is"
                    " far too slow"
                )

        return enough

    @contextlib.contextmanager
    def _levels(self) -> Iterator[None]:
        """What was reached when a backup is not what it claims to be."""
        try:
            yield
        except reread.VerifyError as problem:
            self.record.level = problem.reached or "none"
            raise

    def _load(self, manifest: Manifest, binary: str) -> None:
        record = self.record
        where = f"{self._name(manifest)}/{manifest.payload.name}"
        raw = Raw()
        try:
            try:
                self._start(manifest, binary)
                started = time.monotonic()
                # The server loads meanwhile, and computes the RDB's checksum: a server that says
                # that it has loaded all has found it right.
                with self._timed("verify"):
                    self._walk(manifest, raw)
                client = self._loaded(manifest)
            except (reread.VerifyError, OverdueError):
                raise
            except ToolError:
                # What the file is comes before what a server makes of it, or why none starts.
                with self._timed("verify"):
                    self._look_closer(manifest)
                raise
            with contextlib.closing(client):
                seen = client.keyspace()
                record.restored = {number: Counts(*pair) for number, pair in seen.items()}
                problem = compare_counts(manifest.databases, record.restored)
                if problem is not None:
                    raise ToolError(problem)
                record.level = "load"
                self._time_load(time.monotonic() - started)
                self._compare_values(manifest, client, raw)
                # After that: PFCOUNT, a read to Redis, writes what it counted into the value.
                record.results = [ask(client, question) for question in self._questions]
            self._judge(manifest)
        except reread.VerifyError:
            raise
        except ToolError as error:
            raise ToolError(f"{where}: {error}") from None

    def _time_load(self, waited: float) -> None:
        """What loading took: by the server's own word, because the walk goes on beside it. `waited`
        is the seconds since its start, which it took at most.
        """
        said = self._server.load_seconds()
        self.record.seconds["load"] = waited if said is None else min(said, waited)
        self.record.seconds["ready"] = time.monotonic() - self._began

    def _start(self, manifest: Manifest, binary: str) -> None:
        """Start a server that loads the file, as a replica of nowhere: nothing in it expires."""
        name = self._name(manifest)
        text = server_config(
            directory=self._server.inside,
            databases=max(manifest.databases, default=0) + 1,
            engine=manifest.engine,
            release=release(manifest.server_version),
            settings=manifest.settings,
        )
        try:
            confinement = self._server.start(binary, text, self._config.require_sandbox)
        except NotConfinedError as problem:
            self.record.sandbox = problem.state
            raise
        self.record.sandbox = confinement.state
        self.record.details["sandbox"] = confinement.details
        self._output.step(f"{name}: load in a sandboxed server, sandbox {confinement.state}")

    def _loaded(self, manifest: Manifest) -> Client:
        """A connection to the server, which has loaded the file."""
        name = self._name(manifest)
        client = self._server.connect()
        try:
            self._server.wait_loaded(
                client,
                self._config.load_timeout,
                lambda done: self._output.progress(f"load {name}", int(done), 100),
            )
        except BaseException:
            client.close()
            raise
        return client

    def _compare_values(self, manifest: Manifest, client: Client, raw: Raw) -> None:
        """That the server would save what was backed up, to the last value. `raw` has the
        backup's records.
        """
        name = self._name(manifest)
        progress = self._progress("compare", manifest)
        budget = self._budget("compare", manifest)
        restored: dict[int, Counts] = {}

        def backup(stage: Stage) -> None:
            try:
                walker.inspect(
                    self._server.dump,
                    skimmer=stage,
                    checksum=False,
                    progress=progress,
                    budget=budget,
                )
            except walker.RdbError as problem:
                self._look_closer(manifest)
                raise ToolError(f"a value of it cannot be read: {problem}") from None

        def saved(stage: Stage) -> None:
            self._output.step(f"{name}: compare every value with what the server saves again")
            with self._server.saved_again(client) as stream:
                try:
                    info = walker.inspect_stream(
                        stream, skimmer=stage, checksum=False, progress=progress, budget=budget
                    )
                except walker.RdbError as problem:
                    raise ToolError(
                        f"what the server saves again is no sound RDB: {problem}"
                    ) from None
            restored.update(counts_of(info))

        difference = compare(raw, backup, saved)
        if difference is not None:
            raise ToolError(
                "the server that loaded it holds other values than the backup: "
                + describe(difference, compare_counts(manifest.databases, restored))
            )
        self.record.level = "values"

    def _judge(self, manifest: Manifest) -> None:
        """What stands beside the level and fails the verdict all the same."""
        record, max_age = self.record, self._max_age
        if record.freshness == "stale":
            if manifest.freshness == "stale" and manifest.master is not None:
                raise ToolError(
                    f"stale: it ends at offset {manifest.repl_offset}, but its master was at"
                    f" {manifest.master.repl_offset} when the backup was asked for"
                )
            age = record.started - manifest.fork_time
            raise ToolError(f"stale: it is {age:.0f} s old, more than the {max_age} s allowed")
        failed = [result["reason"] for result in record.results if not result["passed"]]
        if failed:
            raise ToolError(
                f"{len(failed)} of {len(record.results)} assertions do not hold: {failed[0]}"
            )


class OverdueError(ToolError):
    """A backup takes longer to look at than any honest one."""


class _AbsentError(ToolError):
    """A file is not in the repository."""


def _engine(engine: str, version: tuple[int, int]) -> str:
    return f"{engine} {version[0]}.{version[1]}"
