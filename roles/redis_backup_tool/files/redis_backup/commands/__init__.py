"""The command line: `redis-backup COMMAND`, on every host.

Who runs what: cron on the Redis hosts (`create`, as the engine's user) and on the drill host
(`drill`, as redis-backup), systemd on the backup server (`accept`, `prune`, as redis-backup), and
people and their monitoring (the rest). Nothing imports this wing.
"""
