"""What goes in and out: rsync, zstd as a child process, and the one client of Redis.

Run on every host, by whoever has bytes to move: `create`, `accept`, `drill` and what reads backups.
"""
