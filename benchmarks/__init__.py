"""Benchmarks: Lowtide beside what one would use instead, on one machine, against one emulator.

`make bench` runs them all; `python -m benchmarks --help` says what else there is.
"""
