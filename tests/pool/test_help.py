"""The commands' own words: every one has examples, and shells can complete them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import click
import pytest

from harp_client.cli import harp
from pool.standins import HARP


def commands(
    command: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands and groups, with the words that lead to them."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*words, name))


ALL = dict(commands(harp))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_has_examples_of_the_command(words: tuple[str, ...]) -> None:
    context = click.Context(ALL[words], info_name=" ".join(("harp", *words)))
    text = ALL[words].get_help(context)
    _, heading, examples = text.partition("Examples:\n")
    assert heading, text
    first = examples.split("\n\n")[0]
    assert f"{' '.join(('harp', *words))}" in " ".join(first.split())


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_says_what_it_is_or_what_it_takes(words: tuple[str, ...]) -> None:
    for parameter in ALL[words].params:
        if isinstance(parameter, click.Option):
            explained = parameter.help or parameter.show_default or parameter.metavar
            assert explained, parameter.name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(shell: str) -> None:
    done = subprocess.run(
        [*HARP, "completion", shell], capture_output=True, text=True, check=True, timeout=60
    )
    assert "_HARP_COMPLETE" in done.stdout
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=done.stdout, text=True, timeout=60)
        assert checked.returncode == 0


def test_kinds_are_completed() -> None:
    environ = os.environ | {
        "_HARP_COMPLETE": "bash_complete",
        "COMP_WORDS": "harp get sess",
        "COMP_CWORD": "2",
    }
    words = [*HARP[:-2], "-c", "from harp_client.cli import harp; harp(prog_name='harp')"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60)
    assert "plain,sessions" in done.stdout.splitlines()
