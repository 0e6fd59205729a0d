"""Benchmarks: Lowtide beside the alternatives, on one machine, against one emulator.

`make bench` runs them all. `python -m benchmarks --help` shows the options.
"""
