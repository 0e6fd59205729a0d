"""The checks of the spool: whether it works, and whether it belongs to this Redis."""

from __future__ import annotations

from lowtide import InstallationMismatch, Settings, SpoolError
from lowtide.protocol import probe_file
from lowtide.settings import without_password
from lowtide.spool import Spool
from lowtide.store import Seen, Store, redis_errors
from lowtide_cli.commands.doctor.findings import Finding, Health


def check_spool(settings: Settings) -> Finding:
    """Writes, reads and deletes a file in the spool."""
    name = probe_file()
    shown = without_password(settings.spool_url)
    try:
        spool = Spool(settings.spool_url)
        with spool.write(name) as file:
            file.write(b"ebb")
        same = spool.read(name) == b"ebb"
        spool.delete(name)
    except (SpoolError, ImportError, ValueError) as error:
        advice = "make it writable, or set LOWTIDE_SPOOL_URL; an object store needs its library and its credentials"
        return Finding("Spool", Health.FAIL, f"{shown}: {without_password(str(error))}", advice)
    if not same:
        return Finding("Spool", Health.FAIL, f"{shown} returns other bytes than were written")
    if spool.is_open_to_others:
        seen = f"{shown} is writable, and open to every user of this machine"
        advice = (
            "chmod o-rwx on it; Lowtide's folders in it are private, or open to its group if the spool has group bits"
        )
        return Finding("Spool", Health.WARN, seen, advice)
    return Finding("Spool", Health.OK, f"{shown} is writable")


def check_installation(settings: Settings) -> Finding:
    """Compares the installation's id in Redis with that in the spool."""
    try:
        with redis_errors(settings.redis_url.get_secret_value()):
            installation = Store(settings).installation(Spool(settings.spool_url))
            if installation.seen() == Seen(None, None):
                # A check must not mark two places that may be the wrong ones.
                return Finding("Installation", Health.OK, "none yet: the first worker or submit creates it")
            known = installation.check()
    except InstallationMismatch as mismatch:
        return Finding("Installation", Health.FAIL, str(mismatch), "docs/how-to.md, Redis and spool belong together")
    return Finding("Installation", Health.OK, f"{known}, in Redis and in the spool")
