"""The command `harp`: administration of a pool and of this host. Imports happen per command."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from harp_client import __version__
from harp_client.errors import HarpError, cause_of, tell

EPILOG = """\b
Examples:
  harp up                                         a whole pool on this machine
  harp doctor                                     check this host end to end
  harp scheduler --pool lab                       decide who gets which device
  harp token create --role server                 let a server join the pool
  harp join pool.example:7441                     join it
  harp server --scheduler pool.example:7440 --credentials /var/lib/harp/server
                                                  offer this machine's devices
  harp attach web1 --count 2 --memory 8GiB        attach devices to a host
  harp get devices                                what there is
  harp top                                        what is used, live
  harp-run -- python train.py                     run a program on a pooled device

Exit status: 0 ok, 1 failure, 2 usage, 3 not found, 4 denied, 5 conflict or no capacity, 6 nobody
answers, 124 time is up, 130 Ctrl-C.
"""

SCHEDULER_PACKAGES = ("alembic", "numpy", "psycopg", "sqlalchemy")
"""What only the optional extra `scheduler` installs."""

COMMANDS = {
    "attach": "harp_client.commands.leases:attach",
    "audit": "harp_client.commands.history:audit",
    "backup": "harp_scheduler.commands:backup",
    "ca": "harp_server.commands:ca",
    "completion": "harp_client.commands.completion:completion",
    "context": "harp_client.commands.context:context",
    "cordon": "harp_client.commands.admin:cordon",
    "create": "harp_client.commands.admin:create",
    "delete": "harp_client.commands.admin:delete",
    "describe": "harp_client.commands.get:describe",
    "detach": "harp_client.commands.leases:detach",
    "doctor": "harp_client.doctor:doctor",
    "down": "harp_client.commands.local:down",
    "drain": "harp_client.commands.admin:drain",
    "events": "harp_client.commands.history:events",
    "get": "harp_client.commands.get:get",
    "host": "harp_client.commands.host:host",
    "join": "harp_client.commands.join:join",
    "record": "harp_client.commands.record:record",
    "restore": "harp_scheduler.commands:restore",
    "revoke": "harp_client.commands.access:revoke",
    "role": "harp_client.commands.access:role",
    "scheduler": "harp_scheduler.commands:scheduler",
    "server": "harp_server.commands:server",
    "settings": "harp_client.cli:settings_page",
    "start": "harp_client.commands.leases:start",
    "stop": "harp_client.commands.leases:stop",
    "token": "harp_client.commands.access:token",
    "top": "harp_client.commands.top:top",
    "uncordon": "harp_client.commands.admin:uncordon",
    "up": "harp_client.commands.local:up",
    "usage": "harp_client.commands.history:usage",
}


class LazyGroup(click.Group):
    """Loads a command's module when the command is used or listed; `places` says where it is."""

    def __init__(self, *args: Any, places: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.places:
            return None
        module, _, attribute = self.places[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", message="harp %(version)s")
def harp() -> None:
    """HARP pools accelerators: programs use GPUs of other machines unmodified."""


@click.command("settings")
@click.option("--markdown", is_flag=True, help="Print the reference page instead.")
def settings_page(markdown: bool) -> None:
    """List the environment variables that HARP reads, with their values here.

    \b
    Examples:
      harp settings
      harp settings --markdown > docs/environment.md
    """
    from harp_client import settings

    if markdown:
        click.echo(settings.markdown(), nl=False)
        return
    for setting in settings.ALL:
        value = setting.get()
        shown = (
            f"= {value}" if value is not None else f"(default {setting.default.replace('`', '')})"
        )
        click.echo(f"{setting.name} {shown}")


def main() -> NoReturn:
    """Entry point of `harp`; the help says what its exit status means."""
    sys.exit(status_of(harp, "harp"))


def status_of(command: click.Command, name: str) -> int:
    """Runs the command of that name on this process's arguments, and returns its exit status.

    What goes wrong is told in one line. A command that says nothing has done well.
    """
    # Before anything imports gRPC, which writes each handshake that fails to stderr otherwise.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        status = command.main(standalone_mode=False)
    except HarpError as error:
        status = tell(name, error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in SCHEDULER_PACKAGES:
            raise
        missing = HarpError(
            f"a scheduler needs the package {error.name}, which is not installed",
            "pip install 'harp-pool[scheduler]'",
        )
        status = tell(name, missing)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except click.Abort:
        status = 130
    except BrokenPipeError:
        status = 1
    except OSError as error:
        # Of a file whose name came from the command line, as any command may meet.
        status = tell(name, HarpError(cause_of(error)))
    # 125 is for `harp-run`: there the program's own statuses are the others.
    if status == 125:
        status = 2
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    main()
