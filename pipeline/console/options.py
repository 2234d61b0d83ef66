"""The command line of a job: options that take type, choices, default and help from the setting that they change.

argparse reads the line; what is added here are older names that still work, and errors that name the nearest option
or choice.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, TypeAlias

from trackmill.pipeline.console.setting_options import keywords_of_setting
from trackmill.pipeline.storage.secrets.signed_urls import without_signatures
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import shortened

Options: TypeAlias = argparse.Namespace
"""A command line that was read: one attribute an option."""

LARGEST_COUNT = 10**9
"""Items, workers or seconds: no clock of the system and no column of a table overflows."""
_LONGEST_SHOWN = 40


class JobParser(argparse.ArgumentParser):
    """Options of one job.

    Args:
        prog: what the job is called on the command line.
        description: what it does, for `--help`.
        settings: the settings that options may name by their key.
    """

    def __init__(self, prog: str, description: str, settings: type[Settings] | None = None) -> None:
        # Without abbreviations: `--dat` would mean one thing today and another when an option is added.
        super().__init__(prog=prog, description=description, formatter_class=_Formatter, allow_abbrev=False)
        self.settings = settings
        self.keys: dict[str, str] = {}
        """Key of the setting that an option changes, by the option's attribute."""

    def option(
        self,
        name: str,
        *,
        key: str = "",
        settings: type[Settings] | None = None,
        aliases: Iterable[str] = (),
        group: argparse._ActionsContainer | None = None,
        **keywords: Any,
    ) -> None:
        """Add an option.

        Args:
            name: such as `--output`.
            key: the setting that it changes, such as `run.actors`; type, choices and help come from there.
            settings: where the key is looked up, if not in the job's settings.
            aliases: older names: they work, and help does not list them.
            group: under which heading it stands.
            keywords: what argparse takes; they win over the setting's.
        """
        if key:
            owner = settings or self.settings
            assert owner is not None, f"{name}: the job has no settings"
            keywords = keywords_of_setting(owner, key) | keywords
        action = (group or self).add_argument(name, **keywords)
        if key:
            self.keys[action.dest] = key
        for alias in aliases:
            # Known to the parser and not to the action, so the help does not show it.
            self._option_string_actions[alias] = action

    def read(self, arguments: Sequence[str]) -> Options:
        """The options of a command line.

        Raises:
            InputError: an unknown or missing option, or a value that cannot be; names the nearest.
            SystemExit: `--help` or `--version` was answered.
        """
        known = [name for action in self._actions for name in action.option_strings]
        for word in (each.partition("=")[0] for each in arguments):
            # Before anything else: a misspelt option would only be reported as one that is missing.
            if word.startswith("--") and word != "--" and word not in self._option_string_actions:
                self.error("; ".join(filter(None, [f"unknown option {word}", nearest_option(word, known)])))
        options, rest = self.parse_known_args(arguments)
        if rest:
            self.error(f"unexpected argument {rest[0]!r}; put quotes around values with spaces")
        self._refuse_empty(options)
        for name, value in vars(options).items():
            # Before it can be stored or shown; storage puts it back where the URL is opened.
            setattr(options, name, without_signatures(value))
        return options

    def _refuse_empty(self, options: Options) -> None:
        """An empty value, as a shell makes of a variable that is not set, is not the same as an option left out."""
        for action in self._actions:
            # What a setting may be, the settings say themselves.
            if action.option_strings and action.dest not in self.keys and action.default != "":
                value = getattr(options, action.dest, None)
                if value == "" or (action.nargs == "+" and "" in (value or ())):
                    name = action.option_strings[0]
                    self.error(f"{name} is empty (a variable that is not set?): give it a value, or leave it out")

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse passes over a disk that is full.
        if message and file is not None:
            file.write(message)

    def error(self, message: str) -> NoReturn:
        """See `argparse`; raised, so that it is printed like every other mistake."""
        raise InputError(f"{message}; all options: {self.prog} --help")


class _Formatter(argparse.HelpFormatter):
    """Help in the terminal's width, at most 110 columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)
        self._width = min(self._width, 110)


def nearest_option(word: str, known: Sequence[str]) -> str:
    """`did you mean '--detections'?`, with all options that begin alike where the word is their beginning.

    Args:
        word: what was given, such as `--detector`.
        known: all options.
    """
    begin_alike = [name for name in known if name.startswith(word)]
    near = [*difflib.get_close_matches(word, known, n=1), *begin_alike]
    return f"did you mean {' or '.join(repr(name) for name in dict.fromkeys(near))}?" if near else ""


def positive(text: str) -> int:
    """The type of an option that counts things or seconds: a whole number from 1 to `LARGEST_COUNT`."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{shortened(text, _LONGEST_SHOWN)!r} is no whole number of 1 or more")
    if number > LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"{shortened(text, _LONGEST_SHOWN)} is too large: at most {LARGEST_COUNT:,}")
    return number


def price(text: str) -> float:
    """The type of an option that is an amount of money: a number of 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"{shortened(text, _LONGEST_SHOWN)!r} is no price: a number of 0 or more")
    return number


def device(text: str) -> str:
    """The type of an option that names a device; whether this machine has it is found out later."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} should be auto, cpu, cuda or cuda:N")
    return text
