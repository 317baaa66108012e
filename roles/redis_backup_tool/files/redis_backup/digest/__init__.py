"""The digest of values: one number for all that an RDB says, however it is written down.

Run by `create` on a Redis host, by `drill` on the drill host, and by `verify --digest` and
`inspect --digest` wherever they are asked for. Standard library alone.
"""
