"""The run of `lowtide up`, from the start of its first process to the end of its last."""

from __future__ import annotations

from lowtide_cli.commands.up.announcement import announce
from lowtide_cli.commands.up.exports import hooks_exports, own_spool, shared_exports, vertex_exports, write_exports
from lowtide_cli.commands.up.options import Options
from lowtide_cli.commands.up.running import noted
from lowtide_cli.commands.up.shape import shape_of, short_waits
from lowtide_cli.commands.up.supervision import supervise
from lowtide_cli.extras import need
from lowtide_cli.local import Stack, stop_on_signals
from lowtide_cli.terminal import CommandError, Exit, report
from lowtide_cli.terminal.output import stdout


def up(options: Options) -> Exit:
    """Runs the stack until a signal ends it, or until a part ends that cannot be restarted."""
    console = stdout()
    need("worker", "`lowtide up`")
    if options.flower:
        need("flower", "`lowtide up --flower`")
    # The workers read the same settings, from the environment and from `.env`.
    from lowtide_worker.settings import WorkerSettings

    settings = WorkerSettings()
    shape = shape_of(options, settings)
    exports = own_spool(options.data_dir) | shared_exports() | vertex_exports(settings, emulator=shape.emulator)
    if shape.emulator:
        # A worker that is started beside these needs them too.
        exports |= short_waits(settings, own_redis=shape.redis)
    stack = Stack(shape, exports=exports)
    # SIGTERM and a closed terminal stop everything in order too.
    stop_on_signals()
    code = Exit.OK
    try:
        with console.status("starting"):
            stack.start()
        stack.exports |= hooks_exports(settings.webhook_url, stack.emulator_url)
        with noted(stack):
            announce(console, stack, settings, write_exports(shape.directory, stack.exports))
            code = supervise(console, stack)
    except KeyboardInterrupt:
        console.print("\nstopping: workers first, Redis last (press Ctrl-C again to kill them)")
    except CommandError as error:
        # The reason comes before the news that everything is stopped.
        report(str(error))
        code = Exit.ERROR
    finally:
        stack.stop()
        console.print("everything is stopped")
    return code
