"""`lowtide metrics`: serves the metrics, which are read from the store at each scrape."""

from __future__ import annotations

import threading

from lowtide_cli.extras import need
from lowtide_cli.terminal import CommandError
from lowtide_cli.terminal.output import stdout


def metrics(*, host: str, port: int) -> None:
    """Serves until the process is interrupted. Raises `CommandError` where the address cannot be listened on."""
    need("metrics", "`lowtide metrics`")
    # Deferred: they need the extra.
    from lowtide_worker.metrics.exposition import serve_metrics
    from lowtide_worker.settings import WorkerSettings

    settings = WorkerSettings()
    try:
        server = serve_metrics(settings, host=host, port=port)
    except OSError as error:
        raise CommandError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose others with --host and --port"
        ) from error
    try:
        stdout().print(f"http://{host}:{server.server_port}/metrics", soft_wrap=True, markup=False)
        threading.Event().wait()
    finally:
        server.shutdown()
