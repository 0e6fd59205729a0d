"""Fails where the newest row of the price table was read more than 180 days ago: run it before a release.

    python -m tools.old_prices

It is no test, because a test must not fail on a later day by itself.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from lowtide.pricing import PriceTable

MOST_DAYS = 180


def main() -> int:
    newest = PriceTable.read().newest
    days = (datetime.now(UTC).date() - newest).days
    print(f"The newest price was read on {newest}, {days} days ago.")
    if days <= MOST_DAYS:
        return 0
    print("Read Google's page again and correct producer/lowtide/pricing/prices.toml.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
