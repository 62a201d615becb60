"""The `mapfs` command: one module for each verb, imported when it is used."""

import importlib
import itertools
import os
import sys
from typing import Final

import click

from mapfs import __version__
from mapfs.cli.output import name_standard_output
from mapfs.cli.terminal import complain
from mapfs.errors import MapfsError

_VERBS: Final = (
    "mkfs",
    "mount",
    "umount",
    "restart",
    "control",
    "metrics",
    "top",
    "trace",
    "stat",
    "advise",
    "df",
    "slack",
    "fsck",
    "import",
    "export",
    "bench",
)
# Verbs that cannot be the names of modules.
_KEYWORDS: Final = {"import": "import_"}
_INTERRUPTED: Final = 130
# The variable by which a shell asks click what to complete, or for the script that asks.
_COMPLETES: Final = "_MAPFS_COMPLETE"


class _Verbs(click.Group):
    """A group that imports a verb's module when the verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _VERBS:
            return None
        module = _KEYWORDS.get(cmd_name, cmd_name)
        command = importlib.import_module(f"mapfs.cli.{module}").command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="mapfs")
def mapfs() -> None:
    """A filesystem in one memory-mapped store file, with its page slack counted.

    \b
    mapfs mkfs data.mapfs --size 10G      make a store
    mapfs import DIR data.mapfs           copy a directory or an archive into it
    mapfs mount data.mapfs mnt            mount it
    getfattr -n user.mapfs.file.slack F   what mapping costs file F
    mapfs umount mnt                      safe on disk when it returns
    """


def main() -> None:
    """The entry point: errors become one line on standard error and an exit code."""
    if _is_mount_helper_call(sys.argv[1:]):
        from mapfs.cli.mount_helper import main as mount_helper

        mount_helper()
        return
    name_standard_output()
    if _COMPLETES in os.environ:
        from mapfs.cli.completion import use_own_scripts

        use_own_scripts()
    sys.exit(run(mapfs, sys.argv[1:]))


def run(command: click.Command, arguments: list[str]) -> int:
    """Run a command; returns its exit code. Prints errors as one line."""
    try:
        result = command.main(arguments, prog_name=_name_of(command), standalone_mode=False)
    except click.ClickException as error:
        return _explain(error)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except MapfsError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        return 1  # whoever read the output has seen enough
    except OSError as error:
        return _fail(f"{error.filename or 'error'}: {error.strerror}", 1)
    return result if isinstance(result, int) else 0


def _name_of(command: click.Command) -> str:
    return command.name or "mapfs"


def _explain(error: click.ClickException) -> int:
    """Say what is wrong with the words given, and where to read on."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    message = " ".join(error.format_message().split()).removesuffix(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    way_out = f" (see {context.command_path} --help)" if context else ""
    return _fail(message + way_out, error.exit_code)


def _fail(message: str, exit_code: int) -> int:
    complain(message)
    return exit_code


def _is_mount_helper_call(arguments: list[str]) -> bool:
    """Whether mount.fuse3(8) runs us for `mount -t fuse.mapfs`: `mapfs STORE MNT [-o …]`."""
    paths = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    return len(paths) == 2 and paths[0] not in _VERBS
