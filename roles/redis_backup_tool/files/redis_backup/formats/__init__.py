"""The documents that hosts exchange: manifest, receipt, catalogue line, report of a drill.

Run on every host, since one host writes what another reads. Nothing here touches a file.
"""
