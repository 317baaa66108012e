"""The store of accepted backups: accepting uploads, reading backups again, retention.

Run by `redis-backup accept`, `prune`, `verify`, `check`, `list` and `show` on the backup server, as
the user redis-backup. A drill, on its own host, reads backups again with the same code.
"""
