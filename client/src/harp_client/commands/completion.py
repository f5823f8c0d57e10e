"""`harp completion`: what a shell needs to complete the commands of `harp`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from harp_client.errors import HarpError

VARIABLE = "_HARP_COMPLETE"
"""By which the shell asks `harp` for completions; click reads it."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that has SHELL complete commands, options and kinds of `harp`.

    \b
    Examples:
      source <(harp completion bash)
      harp completion zsh > ~/.zfunc/_harp
      harp completion fish > ~/.config/fish/completions/harp.fish
    """
    from harp_client.cli import harp

    found = get_completion_class(shell)
    if found is None:
        raise HarpError(f"click cannot complete for {shell}", "use bash, zsh or fish", 2)
    # Not `source`: for bash that would ask bash for its version, which need not be here.
    made = found(harp, {}, "harp", VARIABLE)
    click.echo(made.source_template % made.source_vars())
