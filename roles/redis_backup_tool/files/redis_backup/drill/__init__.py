"""The restore drill: fetch a backup, restore it in a sandbox, compare, report.

Run by `redis-backup drill` on the drill host, as the user redis-backup.
"""
