"""The object stores that a spool may be in, each by its maker's own library.

The libraries are synchronous: they need no thread of their own, which a forked process would not have.
"""
