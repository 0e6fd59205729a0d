"""`lowtide results`: the stored results of a batch, streamed in one of several formats.

`command` finds the batch and writes the file; `formats` has the form of a line in each format.
"""

from __future__ import annotations

from lowtide_cli.commands.results.command import check_output, results, write_results

__all__ = ["check_output", "results", "write_results"]
