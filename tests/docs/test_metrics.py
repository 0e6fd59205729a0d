"""The reference's table of metrics is that of the code."""

from __future__ import annotations

import re

from tests.docs.documents import ROOT, text_of

from lowtide_worker.metrics.catalogue import CATALOGUE

ROW = re.compile(r"^\| `(lowtide_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", re.MULTILINE)


def test_the_reference_has_a_row_for_each_metric() -> None:
    section = text_of(ROOT / "docs" / "reference.md").partition("\n## Metrics\n")[2].partition("\n## ")[0]
    rows = [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in ROW.findall(section)
    ]

    assert rows == [(metric.name, metric.kind, metric.labels, metric.help) for metric in CATALOGUE]
