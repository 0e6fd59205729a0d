"""The signals that stop what runs on this machine, in order."""

from __future__ import annotations

import signal


def stop_on_signals() -> None:
    """Makes SIGINT, SIGTERM and SIGHUP raise `KeyboardInterrupt`, as Ctrl-C does.

    A script's shell starts what it runs in the background (`lowtide up &`) with SIGINT ignored. Then Ctrl-C would end
    the script and leave everything running, so here SIGINT is not ignored. `nohup` ignores SIGHUP, which stays so.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
