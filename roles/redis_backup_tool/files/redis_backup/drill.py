"""The restore drill: fetch a backup from the repository, restore it in a sandbox, compare, report.

Levels in rising order, each reached only over the ones before it:

* ``bytes``: the stored file has the manifest's sha256, the manifest that of the catalogue;
* ``form``: the RDB is well-formed from its first byte to its last, checksum included;
* ``counts``: keys and expires of every database, and all that the header says, are the manifest's;
* ``load``: a server of the manifest's engine and version loaded it all: same INFO keyspace;
* ``values``: the digest of all that it then saves again is that of the backup. A manifest without
  a digest, or with one that this tool does not compute, gets no further than ``load``.

A drill that could not run is a failed drill: whatever happens ends in a report, which is kept here
and sent to the backup server.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import __version__, assertions, files, rdb, sandbox, transport, verify
from . import manifest as manifests
from .assertions import Assertion
from .catalogue import CATALOGUE_NAME, Catalogue, Entry, timestamp
from .catalogue import parse as parse_catalogue
from .config import DrillConfig
from .errors import ToolError, UsageError
from .fields import is_backup_id, is_name
from .manifest import MANIFEST_NAME, Counts, Manifest
from .output import Output, human_bytes

LEVELS = ("none", "bytes", "form", "counts", "load", "values")
PASSED = "passed"
FAILED = "failed"
REPORT_NAME = "report.json"
# How long a drill waits for another one on this host before it counts as failed. Seconds.
LOCK_WAIT = 900.0
# Room that stays free on the drill's file system, and what a server needs beside its data. Bytes.
DISK_RESERVE = 64 * 2**20
MEMORY_RESERVE = 64 * 2**20
KEPT_REPORTS = 30
# Writing a report takes moments. Seconds.
_ABANDONED = 3600.0

# Which RDB version a release writes (RDB_VERSION in its rdb.h); others are not judged.
_REDIS_WRITES = {
    (5, 0): 9,
    (6, 0): 9,
    (6, 2): 9,
    (7, 0): 10,
    (7, 2): 11,
    (7, 4): 12,
    (8, 0): 12,
    (8, 2): 12,
    (8, 4): 12,
    (8, 6): 13,
    (8, 8): 14,
}
_VALKEY_WRITES = {(7, 2): 11, (8, 0): 11, (8, 1): 11, (9, 0): 80}
# From this version on Valkey writes its own magic.
_VALKEY_MAGIC_FROM = 80


@dataclass(frozen=True)
class Outcome:
    """One drill: its report, and whether the backup server has it."""

    drill_id: str
    report: dict[str, Any]
    details: dict[str, str]
    uploaded: bool

    @property
    def passed(self) -> bool:
        """Everything proven, and the backup server was told."""
        return bool(self.report["verdict"] == PASSED) and self.uploaded


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
        for set_name, backup_id in _targets(config, target)
    ]
    outcomes = []
    with _signals_end_drills() as told:
        for drill in drills:
            try:
                with told.at_once(), _locked(config.work, lock_wait):
                    drill.run()
            except _Stopped as stopped:
                drill.record.reason = str(stopped)
            except Exception as problem:
                # A fault of this tool too is a failed drill with a report, and of one set only.
                drill.record.reason = _sentence(problem)
            outcomes.append(_conclude(config, drill.record, output))
    return outcomes


def _targets(config: DrillConfig, target: str | None) -> list[tuple[str, str | None]]:
    known = ", ".join(sorted(config.sets))
    if not known:
        raise UsageError(f"{config.path}: names no set to drill")
    if target is None:
        return [(set_name, None) for set_name in sorted(config.sets)]
    set_name, slash, backup_id = target.rpartition("/")
    if not slash:
        if len(config.sets) > 1:
            raise UsageError(f"{target!r}: this host drills several sets ({known}); write SET/ID")
        set_name = known
    if not is_name(set_name) or set_name not in config.sets:
        raise UsageError(f"{target!r}: this host drills {known}")
    if not is_backup_id(backup_id):
        raise UsageError(
            f"{target!r}: not the id of a backup; `redis-backup list` on the backup server shows"
            " them"
        )
    return [(set_name, backup_id)]


# --- decisions ------------------------------------------------------------------------------------


def choose(catalogue: Catalogue, backup_id: str | None) -> Entry:
    """The line of the wanted backup, of the newest for None. Raises ToolError without one."""
    if backup_id is None:
        newest = catalogue.newest()
        if newest is None:
            raise ToolError(
                f"{catalogue.set}: the catalogue names no backup: there is nothing to restore"
            )
        return newest
    entry = catalogue.present().get(backup_id)
    if entry is not None:
        return entry
    if backup_id in catalogue.pruned():
        raise ToolError(f"{catalogue.set}/{backup_id}: was pruned by retention")
    raise ToolError(
        f"{catalogue.set}/{backup_id}: has no line in the catalogue, so it was never accepted"
    )


def release(version: str) -> tuple[int, int]:
    """(major, minor) of a server version such as `7.0.15`."""
    found = re.match(r"([0-9]{1,9})\.([0-9]{1,9})", version)
    if found is None:
        raise ToolError(f"{version[:40]!r} is not the version of a server")
    return int(found.group(1)), int(found.group(2))


def impossible_pair(manifest: Manifest) -> str | None:
    """Why such a server cannot have written such an RDB; None when it can, or is not known."""
    table = _VALKEY_WRITES if manifest.engine == "valkey" else _REDIS_WRITES
    writes = table.get(release(manifest.server_version))
    claim = f"RDB version {manifest.rdb_version} with the magic {manifest.rdb_magic}"
    server = f"{manifest.engine} {manifest.server_version}"
    if manifest.engine == "redis" and manifest.rdb_magic != "REDIS":
        return f"says that {server} wrote {claim}, which no Redis does"
    if writes is None:
        return None
    magic = "VALKEY" if writes >= _VALKEY_MAGIC_FROM else "REDIS"
    if (manifest.rdb_magic, manifest.rdb_version) != (magic, writes):
        return f"says that {server} wrote {claim}, but it writes version {writes} with {magic}"
    return None


def judge_freshness(by_offset: str, age: float, max_age: int | None) -> str:
    """`stale` also when older (seconds) than allowed; else what the offsets say."""
    return "stale" if max_age is not None and age > max_age else by_offset


def compare_counts(backup: Mapping[int, Counts], restored: Mapping[int, Counts]) -> str | None:
    """The first database that differs, in words; None when all are equal. Empty ones are absent."""
    empty = Counts(0, 0)
    for number in sorted(set(backup) | set(restored)):
        was, now = backup.get(number, empty), restored.get(number, empty)
        if was != now:
            return (
                f"db{number} had {was.keys} keys and {was.expires} expires in the backup,"
                f" the server that loaded it has {now.keys} and {now.expires}"
            )
    return None


def memory_available(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes of memory that the kernel can give now, None where it does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


# --- one drill ------------------------------------------------------------------------------------


@dataclass
class _Record:
    """What a drill has found out so far; a report can be made of it at any moment."""

    set: str
    backup_id: str | None
    started: float = field(default_factory=time.time)
    manifest: Manifest | None = None
    level: str = "none"
    freshness: str = "unknown"
    restored: dict[int, Counts] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    sandbox: str | None = None
    details: dict[str, str] = field(default_factory=dict)
    reason: str | None = None


class _Drill:
    """One backup on its way up the levels. Raises ToolError or OSError at what is off."""

    def __init__(
        self, config: DrillConfig, set_name: str, backup_id: str | None, output: Output
    ) -> None:
        self.record = _Record(set=set_name, backup_id=backup_id)
        self._config = config
        # Whoever names a backup knows how old it is; the newest one must not be older than this.
        self._max_age = config.max_age if backup_id is None else None
        self._output = output
        self._questions: tuple[Assertion, ...] = ()
        self._fetched = config.work / "fetch"
        launcher: sandbox.Launcher
        if config.unit is None:
            launcher = sandbox.ProcessLauncher(config.work / "sandbox")
        else:
            launcher = sandbox.UnitLauncher(config.unit)
        self._server = sandbox.SandboxServer(config.work / "sandbox", launcher)

    def run(self) -> None:
        """All levels. Leftovers are removed before and after."""
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
                self._fetch(f"{self._name(manifest)}/{manifest.payload.stored_name}")
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

    def _fetch(self, path: str) -> Path:
        """One file of the repository. Errors name it as `<set>/<id>/<file>`."""
        target = self._config.transport
        try:
            transport.fetch(
                target,
                str(target.store_module),
                path,
                self._fetched,
                notify=self._output.step,
            )
        except transport.TransportError as problem:
            if "No such file" in str(problem):
                raise _AbsentError(f"{path}: is not in the repository") from None
            raise ToolError(f"{path}: cannot be fetched: {problem}") from None
        local = self._fetched / path.rsplit("/", 1)[1]
        if not local.is_file():
            raise _AbsentError(f"{path}: is not a file in the repository")
        return local

    def _fetch_manifest(self) -> tuple[Manifest, str]:
        """Choose the backup and learn what it claims to be, before any payload moves."""
        record = self.record
        try:
            raw = self._fetch(f"{record.set}/{CATALOGUE_NAME}").read_bytes()
        except _AbsentError as problem:
            raise ToolError(f"{problem}: no backup of set {record.set} was accepted yet") from None
        entry = choose(parse_catalogue(raw, record.set), record.backup_id)
        record.backup_id = entry.id
        where = f"{record.set}/{entry.id}/{MANIFEST_NAME}"
        self._output.step(f"{record.set}/{entry.id}: chosen, accepted {entry.at}")
        raw = self._fetch(where).read_bytes()
        if manifests.sha256(raw) != entry.manifest_sha256:
            raise ToolError(
                f"{where}: sha256 is {manifests.sha256(raw)}, the catalogue says"
                f" {entry.manifest_sha256}: the manifest was changed after it was accepted"
            )
        manifest = manifests.decode(raw, where)
        if (manifest.set, manifest.id) != (record.set, entry.id):
            raise ToolError(f"{where}: is the manifest of {manifest.set}/{manifest.id}")
        record.manifest = manifest
        record.freshness = judge_freshness(
            manifest.freshness, record.started - manifest.fork_time, self._max_age
        )
        impossible = impossible_pair(manifest)
        if impossible is not None:
            raise ToolError(f"{where}: {impossible}")
        return manifest, where

    def _matching_server(self, manifest: Manifest, where: str) -> str:
        """The binary of the same engine and release: another one proves nothing about a restore."""
        wanted = (manifest.engine, release(manifest.server_version))
        binary = self._config.servers.get(manifest.engine)
        if binary is None:
            raise ToolError(
                f"{where}: the backup is of {_engine(*wanted)},"
                f" but this drill host has no {manifest.engine} server configured"
            )
        installed = sandbox.server_version(binary)
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
            verify.unpack(self._fetched, manifest, self._server.dump)
        self.record.level = "bytes"
        # What is proven is not needed a second time, its room may be.
        (self._fetched / manifest.payload.stored_name).unlink()

    def _walk(self, manifest: Manifest, checksum: bool) -> None:
        name = self._name(manifest)
        with self._levels():
            verify.walk(
                self._server.dump,
                manifest,
                progress=lambda done, total: self._output.progress(f"walk {name}", done, total),
                checksum=checksum,
            )
        self.record.level = "counts"

    @contextlib.contextmanager
    def _levels(self) -> Iterator[None]:
        """What was reached when a backup is not what it claims to be."""
        try:
            yield
        except verify.VerifyError as problem:
            self.record.level = problem.reached or "none"
            raise

    def _load(self, manifest: Manifest, binary: str) -> None:
        record = self.record
        where = f"{self._name(manifest)}/{manifest.payload.name}"
        try:
            try:
                with self._timed("load"):
                    self._start(manifest, binary)
                # Meanwhile the server loads, and computes the RDB's checksum: a server that says
                # that it has loaded all has found it right.
                with self._timed("verify"):
                    self._walk(manifest, checksum=False)
                with self._timed("load"):
                    client = self._loaded(manifest)
            except verify.VerifyError:
                raise
            except ToolError:
                # What the file is comes before what a server makes of it, or why none starts.
                with self._timed("verify"):
                    self._walk(manifest, checksum=True)
                raise
            with contextlib.closing(client):
                seen = client.keyspace()
                record.restored = {number: Counts(*pair) for number, pair in seen.items()}
                problem = compare_counts(manifest.databases, record.restored)
                if problem is not None:
                    raise ToolError(problem)
                record.level = "load"
                record.seconds["ready"] = sum(record.seconds.values())
                self._compare_values(manifest, client)
                # After that: PFCOUNT, a read to Redis, writes what it counted into the value.
                record.results = [ask(client, question) for question in self._questions]
            self._judge(manifest)
        except verify.VerifyError:
            raise
        except ToolError as error:
            raise ToolError(f"{where}: {error}") from None

    def _start(self, manifest: Manifest, binary: str) -> None:
        """Start a server that loads the file, as a replica of nowhere: nothing in it expires."""
        name = self._name(manifest)
        text = sandbox.server_config(
            directory=self._server.inside,
            databases=max(manifest.databases, default=0) + 1,
            engine=manifest.engine,
            release=release(manifest.server_version),
        )
        try:
            confinement = self._server.start(binary, text, self._config.require_sandbox)
        except sandbox.NotConfinedError as problem:
            self.record.sandbox = problem.state
            raise
        self.record.sandbox = confinement.state
        self.record.details["sandbox"] = confinement.details
        self._output.step(f"{name}: load in a sandboxed server, sandbox {confinement.state}")

    def _loaded(self, manifest: Manifest) -> sandbox.Client:
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

    def _compare_values(self, manifest: Manifest, client: sandbox.Client) -> None:
        """That the server would save what was backed up, to the last value."""
        record, name = self.record, self._name(manifest)
        if not verify.comparable(manifest):
            record.details["values"] = "not compared, the manifest has no digest to compare with"
            return
        self._output.step(f"{name}: compare every value with what the server saves again")
        with self._server.saved_again(client) as stream:
            try:
                saved = rdb.inspect_stream(
                    stream,
                    digest=True,
                    checksum=False,
                    progress=lambda done, _: self._output.progress(
                        f"compare {name}", min(done, manifest.payload.size), manifest.payload.size
                    ),
                )
            except rdb.RdbError as problem:
                raise ToolError(f"what the server saves again is no sound RDB: {problem}") from None
        if saved.digest == manifest.digest:
            record.level = "values"
            return
        differ = compare_counts(manifest.databases, verify.counts_of(saved))
        own = rdb.inspect(self._server.dump, digest=True).digest
        if own != manifest.digest:
            raise ToolError(
                f"the digest of its values is {own}, the manifest says {manifest.digest}: not the"
                " values that were backed up"
            )
        raise ToolError(
            "the server that loaded it holds other values than the backup: what it saves again has"
            f" the digest {saved.digest}, the backup {own}" + (f" ({differ})" if differ else "")
        )

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


class _AbsentError(ToolError):
    """A file is not in the repository."""


class _Stopped(KeyboardInterrupt):
    """Somebody told the drill to stop: no step may take it for an error of its own and go on."""


def ask(client: sandbox.Client, question: Assertion) -> dict[str, Any]:
    """Run one assertion and say how it went; what the server does not call a read does not run."""
    reply: assertions.Reply = None
    problem: str | None
    names = [question.command[0].lower(), "|".join(question.command[:2]).lower()]
    try:
        infos = [client.call("COMMAND", "INFO", name) for name in names]
        if assertions.is_read_only(names, infos):
            client.call("SELECT", str(question.db))
            reply = assertions.from_wire(client.call(*question.command))
            problem = assertions.evaluate(question, reply)
        else:
            problem = f"{question}: the server does not call this a command that only reads"
    except sandbox.ServerSaidError as error:
        problem = f"{question}: the server says {str(error)!r}"
    return question.result(reply, problem)


def _engine(engine: str, version: tuple[int, int]) -> str:
    return f"{engine} {version[0]}.{version[1]}"


def _sentence(problem: Exception) -> str:
    """One line without a traceback."""
    if isinstance(problem, OSError):
        where = f"{problem.filename}: " if problem.filename else ""
        return f"{where}{problem.strerror or problem}"
    text = " ".join(str(problem).split())
    # What nobody thought of says more with its type.
    return text if isinstance(problem, ToolError) else f"{type(problem).__name__}: {text}"[:500]


# --- report ---------------------------------------------------------------------------------------


def report(record: _Record, finished: float) -> dict[str, Any]:
    """The report as JSON data: times ISO 8601 UTC, durations seconds.

    `reason` is there when the drill failed, and only then.
    """
    manifest, restored = record.manifest, record.restored
    age = None if manifest is None else record.started - manifest.fork_time
    seconds = {name: round(spent, 3) for name, spent in record.seconds.items()}
    data = {
        "set": record.set,
        "backup_id": record.backup_id,
        "verdict": PASSED if record.reason is None else FAILED,
        "level": record.level,
        "freshness": record.freshness,
        "engine": manifest.engine if manifest else None,
        "server_version": manifest.server_version if manifest else None,
        "databases": {
            "backup": manifests.databases_to_json(manifest.databases) if manifest else None,
            "restored": None if restored is None else manifests.databases_to_json(restored),
        },
        "rpo_seconds": None if age is None else round(age, 3),
        "rto_seconds": {name: seconds.get(name) for name in ("fetch", "verify", "load", "ready")},
        "assertions": record.results,
        "sandbox": record.sandbox,
        "started": timestamp(record.started),
        "finished": timestamp(finished),
        "tool_version": __version__,
    }
    if record.reason is not None:
        data["reason"] = record.reason
    return data


def _conclude(config: DrillConfig, record: _Record, output: Output) -> Outcome:
    """Write the report, keep it, send it; a disk that is full here must not keep it from there."""
    data = report(record, time.time())
    details = dict(record.details)
    drill_id = manifests.make_id(record.started, config.host)
    try:
        with contextlib.ExitStack() as held:
            parent = config.work / "reports"
            try:
                drill_id = _keep(parent, record.started, config.host, data)
            except OSError as problem:
                details["kept"] = f"the report cannot be kept here: {_sentence(problem)}"
                elsewhere = tempfile.TemporaryDirectory(prefix="redis-backup-drill-")
                parent = Path(held.enter_context(elsewhere))
                drill_id = _keep(parent, record.started, config.host, data)
            transport.upload(config.transport, parent, drill_id, [REPORT_NAME], notify=output.step)
    except (ToolError, OSError) as problem:
        details["upload"] = f"the report is not on the backup server: {_sentence(problem)}"
    uploaded = "upload" not in details
    return Outcome(drill_id=drill_id, report=data, details=details, uploaded=uploaded)


def _keep(parent: Path, started: float, host: str, data: Mapping[str, Any]) -> str:
    """Write `<parent>/<drill id>/report.json`, whole or not at all; the id is one not taken yet."""
    parent.mkdir(mode=0o700, exist_ok=True)
    moment = started
    while True:
        drill_id = manifests.make_id(moment, host)
        try:
            (parent / drill_id).mkdir(mode=0o700)
            break
        except FileExistsError:
            # Ids count seconds, and two sets may be drilled in one.
            moment += 1
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    files.write_durably(parent / drill_id / REPORT_NAME, text.encode("utf-8"))
    kept = sorted(path for path in parent.iterdir() if is_backup_id(path.name))
    for path in [*kept[:-KEPT_REPORTS], *filter(_abandoned, kept)]:
        shutil.rmtree(path, ignore_errors=True)
    return drill_id


def _abandoned(directory: Path) -> bool:
    """Whether this is what a drill left that was killed before its report was whole."""
    try:
        age = time.time() - directory.stat().st_mtime
    except FileNotFoundError:
        return False
    return age > _ABANDONED and not (directory / REPORT_NAME).exists()


def to_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What `--json` prints; `text` is the verdict for people, line by line."""
    return {
        "drills": [
            {
                "drill_id": outcome.drill_id,
                "passed": outcome.passed,
                "uploaded": outcome.uploaded,
                "report": outcome.report,
                "text": _lines(outcome),
            }
            for outcome in outcomes
        ]
    }


def render(outcomes: Sequence[Outcome]) -> str:
    """The verdicts as text, one block per drill."""
    return "\n".join(line for outcome in outcomes for line in _lines(outcome))


def _lines(outcome: Outcome) -> list[str]:
    data = outcome.report
    proven = ", ".join(LEVELS[1 : LEVELS.index(data["level"]) + 1]) or "nothing"
    asked = data["assertions"]
    holding = sum(1 for result in asked if result["passed"])
    spent = [
        f"{phase} {seconds:.2f} s"
        for phase, seconds in data["rto_seconds"].items()
        if seconds is not None
    ]
    rows = [
        ("reason", data.get("reason")),
        ("level", f"{data['level']} (proven: {proven})"),
        ("values", outcome.details.get("values")),
        *((f"db{number}", _database(data, number)) for number in _databases(data)),
        ("assertions", f"{holding} of {len(asked)} hold" if asked else None),
        ("freshness", data["freshness"]),
        ("sandbox", _sandbox(data["sandbox"], outcome.details)),
        ("RPO", None if data["rpo_seconds"] is None else f"{data['rpo_seconds']:.0f} s"),
        ("RTO", ", ".join(spent)),
        ("warning", outcome.details.get("kept")),
        ("warning", outcome.details.get("upload")),
    ]
    title = f"{data['verdict'].upper()}  {data['set']}/{data['backup_id'] or '(no backup)'}"
    return [
        f"{title}  (drill {outcome.drill_id})",
        *(f"  {name:<12}{value}" for name, value in rows if value),
    ]


def _sandbox(state: str | None, details: Mapping[str, str]) -> str | None:
    if state == sandbox.SANDBOX_ENFORCED and "sandbox" in details:
        return f"{state} ({details['sandbox']})"
    return state


def _databases(data: Mapping[str, Any]) -> list[str]:
    both = data["databases"]
    return sorted({*(both["backup"] or {}), *(both["restored"] or {})}, key=int)


def _database(data: Mapping[str, Any], number: str) -> str:
    def words(side: Mapping[str, Mapping[str, int]] | None) -> str:
        if side is None:
            return "unknown"
        counts = side.get(number, {"keys": 0, "expires": 0})
        return f"{counts['keys']} keys, {counts['expires']} expires"

    both = data["databases"]
    return f"backup {words(both['backup'])}; restored {words(both['restored'])}"


# --- around it ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(work: Path, wait: float) -> Iterator[None]:
    """The only drill on this host. A held lock is waited for; one that stays held is a failure."""
    status = work.stat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ToolError(
            f"{work}: must be a directory of user id {os.getuid()} with mode 0700:"
            " restored data and the sandboxed server's socket lie in it"
        )
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(work / ".lock", flags, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ToolError(
                        f"{work}/.lock: another drill has held it for {wait:.0f} s,"
                        " this one did not run"
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


class _Told:
    """Whether somebody told the drills to stop. One that is at work ends at once, a report is sent
    to its end; those that come after do not start.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self._stop: _Stopped | None = None
        self._at_once = False

    def __call__(self, number: int, _frame: object) -> None:
        for other in self.signals:
            # Impatience must not cut the cleaning up short.
            signal.signal(other, signal.SIG_IGN)
        self._stop = _Stopped(f"stopped by {signal.Signals(number).name}")
        if self._at_once:
            raise self._stop

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """What is stopped in the middle. Raises _Stopped, also for what came before."""
        self._at_once = True
        try:
            if self._stop is not None:
                raise self._stop
            yield
        finally:
            self._at_once = False


@contextlib.contextmanager
def _signals_end_drills() -> Iterator[_Told]:
    """A drill that is told to stop cleans up, and is a failed drill with a report."""
    told = _Told()
    before = {number: signal.signal(number, told) for number in told.signals}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
