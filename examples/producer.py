"""Submits ten requests, waits for them and prints the results: python producer.py [HANDLER]

Run `lowtide up` first, and here the line that it prints. With `handlers.save` as HANDLER, and
handlers.py running, each result is handed to its function too.
"""

from __future__ import annotations

import sys

from lowtide import BatchQueue, Request

requests = (
    Request(key=f"city-{number}", contents=f"One sentence about {city}.", config={"temperature": 0.2})
    for number, city in enumerate(
        ["Accra", "Bergen", "Cusco", "Dakar", "Essaouira", "Faro", "Ghent", "Hobart", "Izmir", "Jaffna"]
    )
)

batch = BatchQueue().submit(requests, model="gemini-3.5-flash", on_result=sys.argv[1] if len(sys.argv) > 1 else None)
print(f"submitted {batch.id}")
status = batch.wait()
print(f"{status.state}: {status.succeeded} of {status.total} succeeded")
for result in batch.results():
    print(result.key, result.text if result.error is None else result.error.reason, sep="\t")
