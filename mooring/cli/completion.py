"""The command `mooring completion`: what a shell needs to complete our commands, written from their own parsers."""

import argparse
import importlib
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHELLS = ("bash", "zsh")
DESCRIPTION = """\
Print a script that completes commands, options, their values and files, for `mooring`, `train` and `serve`.
"""
EPILOG = """\
example: mooring completion bash > ~/.local/share/bash-completion/completions/mooring
         source <(mooring completion zsh)          # in ~/.zshrc, after compinit

exit codes: 0, or 2 for wrong usage
"""
# Commands that are programs of their own, too.
PROGRAMS = ("train", "serve")
PATH_WORDS = ("DIR", "FILE", "ARCHIVE")
FILES = 'compgen -f -- "$word"'
SCRIPT = """\
_mooring() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD - 1]}}" path="${{COMP_WORDS[0]##*/}}" at=0
    local IFS=$'\\n'
    [[ $path == mooring ]] && path=""
    # The command's words that were written so far, without options.
    while (( ++at < COMP_CWORD )); do
        case "$path ${{COMP_WORDS[at]}}" in
{descents}
        esac
    done
    case "$path $before" in
{values}
    esac
    case "$path" in
{places}
    esac
}}
complete -o filenames -F _mooring mooring {programs}
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


@dataclass(frozen=True)
class Place:
    """What may come after some words of a command: words, or files, or the value of an option."""

    path: str
    words: tuple[str, ...]
    takes_files: bool
    values: dict[str, str]  # what completes an option's value, by the option


def main() -> None:
    """Run the command with the process's arguments."""
    sys.stdout.write(script(parser().parse_args().shell))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring completion",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("shell", choices=SHELLS, help="whose script")
    return made


def script(shell: str) -> str:
    """Return the script for a shell; zsh runs bash's."""
    places = list(_all_places())
    known = {place.path for place in places}
    descents = [
        f'            "{place.path} {word}") path={shlex.quote(f"{place.path} {word}".strip())} ;;'
        for place in places
        for word in place.words
        if f"{place.path} {word}".strip() in known
    ]
    values = [
        f'        "{place.path} {option}") COMPREPLY=($({command})); return ;;'
        for place in places
        for option, command in place.values.items()
    ]
    made = SCRIPT.format(
        descents="\n".join(descents),
        values="\n".join(values),
        places="\n".join(map(_case, places)),
        programs=" ".join(PROGRAMS),
    )
    return (ZSH if shell == "zsh" else "") + made


def _case(place: Place) -> str:
    lines = [f"COMPREPLY=($({_among(place.words)}))"]
    if place.takes_files:
        lines = [f"[[ $word == -* ]] && {lines[0]} || COMPREPLY=($({FILES}))"]
    return f'        "{place.path}") {"; ".join(lines)} ;;'


def _among(words: tuple[str, ...]) -> str:
    return f"IFS=$'\\n' compgen -W {_quoted(words)} -- \"$word\""


def _quoted(words: tuple[str, ...]) -> str:
    return "$'" + "\\n".join(words) + "'"


def _all_places() -> Iterator[Place]:
    from .main import COMMANDS

    yield Place("", (*COMMANDS, "--help", "--version"), takes_files=False, values={})
    for name, (module, _) in COMMANDS.items():
        yield from _places(name, importlib.import_module(module).parser())


def _places(path: str, parser: argparse.ArgumentParser) -> Iterator[Place]:
    options: list[str] = []
    words: list[str] = []
    values: dict[str, str] = {}
    takes_files = False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words += action.choices
            for name, inner in action.choices.items():
                yield from _places(f"{path} {name}", inner)
        elif action.option_strings:
            options += action.option_strings
            values |= dict.fromkeys(action.option_strings, _value(action)) if action.nargs != 0 else {}
        elif action.choices:
            words += map(str, action.choices)
        else:
            takes_files = takes_files or _is_path(action)
    yield Place(path, (*words, *options), takes_files, values)


def _value(action: argparse.Action) -> str:
    if action.choices:
        return _among(tuple(map(str, action.choices)))
    return FILES if _is_path(action) else ":"


def _is_path(action: argparse.Action) -> bool:
    return action.type is Path or any(word in str(action.metavar) for word in PATH_WORDS)
