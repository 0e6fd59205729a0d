"""The stages, one file each, in the order the data flows:

submit → create → poll → collect → deliver (many) → settle → clean, and delete at the very end.

A stage takes what it holds and returns a `Move` (what comes next, and when), or `Done` where a script of the ledger
has moved the entity already. Stages talk to each other only through the store and the spool.
"""
