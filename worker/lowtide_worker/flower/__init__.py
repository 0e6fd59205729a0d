"""The pages of Lowtide in Flower: batches, the account at the provider, and dead letters, under `/lowtide`.

They run in Flower's process, behind Flower's login, and read what the command line reads. `hook` adds them to Flower;
the other modules need the packages flower and tornado, and only `hook` imports them.
"""

from __future__ import annotations

from lowtide_worker.flower.hook import add_pages

__all__ = ["add_pages"]
