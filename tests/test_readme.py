"""The README's commands are ones that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from autoctr.cli import cli

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every ``autoctr ...`` of the README, in code blocks and in running text, once."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [
        line.partition("#")[0].partition(">")[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()
    ]
    found = [line[line.index("autoctr ") :] for line in lines if re.search(r"(^|/|-m )autoctr ", line)]
    found += [text.replace("\n", " ") for text in re.findall(r"`(autoctr [^`]+)`", README)]
    return sorted({" ".join(command.split()) for command in found})


@pytest.mark.parametrize("command", commands())
def test_the_command_line_takes(command: str) -> None:
    words = shlex.split(re.sub(r"[\[\]]", "", command).replace("...", ""))[1:]
    values = {"N": "3", "T": "60s"}
    words = [values.get(word, word) for word in words]
    name, *arguments = words
    context = click.Context(cli)
    found = cli.get_command(context, name)
    assert found is not None, f"there is no command {name}"
    while isinstance(found, click.Group) and arguments:
        name, *arguments = arguments
        found = found.get_command(context, name)
        assert found is not None, f"there is no command {name}"
    needs = [p for p in found.params if isinstance(p, click.Argument) and p.required]
    bare = needs and not arguments and len(words) <= 2  # a command's name alone, in running text
    if not bare:
        found.make_context(name, arguments, parent=context)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 20
