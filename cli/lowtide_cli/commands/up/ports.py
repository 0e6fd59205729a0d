"""The ports of the servers: those that the user chose, else the usual ones or free ones."""

from __future__ import annotations

from lowtide_cli.commands.up.options import Options
from lowtide_cli.local import free_port, is_free
from lowtide_cli.terminal import CommandError
from lowtide_cli.terminal.output import stderr


def chosen_port(options: Options, server: str, usual: int) -> int:
    """Returns the port of a server. Only the usual one may be replaced by a free one, and a line says so.

    Raises `CommandError` if the port that the user chose is taken.
    """
    if wanted := getattr(options, f"{server}_port"):
        if not is_free(wanted):
            raise CommandError(f"--{server}-port: port {wanted} is in use; choose another one, or leave the option out")
        return int(wanted)
    port = free_port(usual)
    if port != usual:
        stderr().print(f"port {usual} is in use: {server} gets port {port}; choose one with --{server}-port")
    return port
