"""The directives of redis.conf: names, kinds and spellings, as tables.

They are those of src/config.c of Redis 6.0, 6.2, 7.0, 7.2 and 8.0, and of Valkey.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible_collections.proven.redis.plugins.module_utils.conf_text import ConfError

# Old name -> (today's name, first version that knows it). Redis takes the old names still, and its
# CONFIG REWRITE turns them into the new ones.
ALIASES: Mapping[str, tuple[str, str]] = {
    "slaveof": ("replicaof", "5.0"),
    "slave-announce-ip": ("replica-announce-ip", "5.0"),
    "slave-announce-port": ("replica-announce-port", "5.0"),
    "slave-ignore-maxmemory": ("replica-ignore-maxmemory", "5.0"),
    "slave-lazy-flush": ("replica-lazy-flush", "5.0"),
    "slave-priority": ("replica-priority", "5.0"),
    "slave-read-only": ("replica-read-only", "5.0"),
    "slave-serve-stale-data": ("replica-serve-stale-data", "5.0"),
    "min-slaves-to-write": ("min-replicas-to-write", "5.0"),
    "min-slaves-max-lag": ("min-replicas-max-lag", "5.0"),
    "repl-ping-slave-period": ("repl-ping-replica-period", "5.0"),
    "cluster-slave-no-failover": ("cluster-replica-no-failover", "5.0"),
    "cluster-slave-validity-factor": ("cluster-replica-validity-factor", "5.0"),
    "hash-max-ziplist-entries": ("hash-max-listpack-entries", "7.0"),
    "hash-max-ziplist-value": ("hash-max-listpack-value", "7.0"),
    "list-max-ziplist-size": ("list-max-listpack-size", "7.0"),
    "zset-max-ziplist-entries": ("zset-max-listpack-entries", "7.0"),
    "zset-max-ziplist-value": ("zset-max-listpack-value", "7.0"),
    "lua-time-limit": ("busy-reply-threshold", "7.0"),
    "server_cpulist": ("server-cpulist", "7.4"),
    "bio_cpulist": ("bio-cpulist", "7.4"),
    "aof_rewrite_cpulist": ("aof-rewrite-cpulist", "7.4"),
    "bgsave_cpulist": ("bgsave-cpulist", "7.4"),
    # Valkey's own newer names; it takes Redis's as well.
    "commandlog-execution-slower-than": ("slowlog-log-slower-than", "0.0"),
    "commandlog-slow-execution-max-len": ("slowlog-max-len", "0.0"),
    "primaryauth": ("masterauth", "0.0"),
    "primaryuser": ("masteruser", "0.0"),
}
_OLD_NAMES = {new: (old, since) for old, (new, since) in ALIASES.items()}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


BOOLEANS = _names(
    """
    activedefrag activerehashing always-show-logo aof-disable-auto-gc aof-load-truncated
    aof-rewrite-incremental-fsync aof-timestamp-enabled aof-use-rdb-preamble appendonly
    cluster-allow-pubsubshard-when-down cluster-allow-reads-when-down
    cluster-allow-replica-migration cluster-enabled cluster-replica-no-failover
    cluster-require-full-coverage crash-log-enabled crash-memcheck-enabled daemonize disable-thp
    dynamic-hz gopher-enabled hide-user-data-from-log io-threads-do-reads jemalloc-bg-thread
    latency-tracking lazyfree-lazy-eviction lazyfree-lazy-expire lazyfree-lazy-server-del
    lazyfree-lazy-user-del lazyfree-lazy-user-flush no-appendfsync-on-rewrite protected-mode
    rdb-del-sync-files rdb-save-incremental-fsync rdbchecksum rdbcompression
    repl-disable-tcp-nodelay repl-diskless-sync replica-announced
    replica-ignore-disk-write-errors replica-ignore-maxmemory replica-lazy-flush
    replica-read-only replica-serve-stale-data set-proc-title stop-writes-on-bgsave-error
    syslog-enabled tls-cluster tls-prefer-server-ciphers tls-replication tls-session-caching
    """
)

ENUMS = _names(
    """
    acl-pubsub-default appendfsync cluster-preferred-endpoint-type enable-debug-command
    enable-module-command enable-protected-configs loglevel maxmemory-policy oom-score-adj
    propagation-error-behavior repl-diskless-load sanitize-dump-payload supervised
    syslog-facility tls-auth-clients
    """
)

# Take units (`64mb`); CONFIG GET answers in bytes.
MEMORY = _names(
    """
    active-defrag-ignore-bytes auto-aof-rewrite-min-size client-query-buffer-limit
    cluster-link-sendbuf-limit hash-max-listpack-value hll-sparse-max-bytes maxmemory
    maxmemory-clients proto-max-bulk-len repl-backlog-size replica-full-sync-buffer-limit
    stream-node-max-bytes zset-max-listpack-value
    """
)

# Of these, those that take per cent of maxmemory too.
MEMORY_SHARES = frozenset({"maxmemory-clients"})

# Some that take a number: those that people set most.
NUMBERS = _names(
    """
    active-expire-effort hash-max-listpack-entries hz latency-monitor-threshold lfu-decay-time
    lfu-log-factor list-max-listpack-size maxclients maxmemory-samples repl-ping-replica-period
    repl-timeout tcp-backlog
    """
)

OCTAL = frozenset({"unixsocketperm"})

# Strings whose empty value is the same as no line at all; CONFIG REWRITE drops such a line.
EMPTY_IS_ABSENT = _names(
    """
    aof-rewrite-cpulist bgsave-cpulist bind-source-addr bio-cpulist cluster-announce-hostname
    cluster-announce-human-nodename cluster-announce-ip masterauth masteruser pidfile
    replica-announce-ip replicaof requirepass server-cpulist tls-ca-cert-dir tls-ca-cert-file
    tls-cert-file tls-ciphers tls-ciphersuites tls-client-cert-file tls-client-key-file
    tls-client-key-file-pass tls-dh-params-file tls-key-file tls-key-file-pass tls-protocols
    unixsocket
    """
)

# Still read, but without effect since 7.0; CONFIG REWRITE turns such a line into a comment.
WITHOUT_EFFECT = frozenset(
    {"list-max-ziplist-entries", "list-max-ziplist-value", "lua-replicate-commands"}
)

# Take several arguments on one line; of several lines the last wins.
ONE_LINE = _names(
    """
    bind replicaof oom-score-adj-values shutdown-on-sigint shutdown-on-sigterm
    latency-tracking-info-percentiles
    """
)
# Lines add up.
REPEATED = _names("save client-output-buffer-limit rename-command user loadmodule include")
# Of these, every first argument is a setting of its own (a user, a command, a file); CONFIG GET and
# CONFIG SET know none of them.
KEYED = frozenset({"rename-command", "user", "loadmodule", "include"})

# What CONFIG SET refuses with "can't set immutable config" (7.0; newer ones have the same).
IMMUTABLE = _names(
    """
    aclfile always-show-logo aof-rewrite-cpulist appenddirname appendfilename bgsave-cpulist
    bio-cpulist client-default-resp cluster-config-file cluster-enabled cluster-port daemonize
    databases disable-thp enable-debug-command enable-module-command enable-protected-configs
    io-threads io-threads-do-reads logfile pidfile rdbchecksum replicaof req-res-logfile
    server-cpulist set-proc-title socket-mark-id supervised syslog-enabled syslog-facility
    syslog-ident tcp-backlog unixsocket unixsocketperm
    """
)
IMMUTABLE_BEFORE: Mapping[str, frozenset[str]] = {"6.2": frozenset({"port", "tls-port", "bind"})}

# Where the data is. Redis 7 refuses to set the first two ("protected config"); the other two are
# only immutable for Redis, but a restart with another name of the AOF comes up without the data.
PROTECTED_NAMES = frozenset({"dir", "dbfilename", "appendfilename", "appenddirname"})

# What a trial boot does not take from the file, so that its CONFIG GET tells nothing about that.
# `maxclients` is not overridden, but lowered to what the caller's ulimit allows.
TRIAL_OVERRIDES = _names(
    """
    aclfile bind daemonize dir logfile maxclients pidfile port replicaof save supervised tls-port
    unixsocket unixsocketperm
    """
)

SECRET_NAMES = _names(
    """
    masterauth requirepass tls-key-file-pass tls-client-key-file-pass user rename-command
    """
)


def fold(name: str) -> str:
    """Today's name of a directive, in lower case: `slaveof` and `ReplicaOf` are `replicaof`."""
    lower = name.lower()
    return ALIASES[lower][0] if lower in ALIASES else lower


def spell(name: str, version: str) -> str:
    """The name of a directive as this version of Redis prefers it."""
    today = fold(name)
    old, since = _OLD_NAMES.get(today, (today, "0.0"))
    return today if release_of(version) >= release_of(since) else old


def release_of(version: str) -> tuple[int, int]:
    found = re.match(r"(?:\d+:)?(\d+)\.(\d+)", version)
    if not found:
        raise ConfError(f"{version!r} is not a version of Redis, such as 7.0 or 7.0.15")
    return int(found[1]), int(found[2])
