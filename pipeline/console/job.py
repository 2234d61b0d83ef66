"""The frame of every job: it reads the command line, runs the job, and turns whatever happens into an exit code.

A job is a module in `jobs/` with a `JOB`. It imports what is heavy (torch, Ray) only inside the function that runs, so
help and mistakes in the command are answered at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trackmill
from trackmill.pipeline.console.encoding import use_utf8
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.failures import failing_threads_are_told, report_failure
from trackmill.pipeline.console.layers import layered
from trackmill.pipeline.console.missing import with_advice
from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.console.output import (
    discard_stdout,
    flush_stdout,
    logging_to_stderr,
    open_standard_streams,
    printable_streams,
)
from trackmill.pipeline.console.signals import stopped_by_sigterm
from trackmill.pipeline.storage.credentials import protocol_of, redact
from trackmill.pipeline.storage.scratch import NOTHING_STAYS
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job.

    Args:
        name: what follows `trackmill` on the command line.
        description: one sentence for `--help`.
        add_options: adds its own options; `--config`, `--set`, `--print-config`, `--print-schema` and `--version` are
            added for it.
        run: does the work and returns the exit code; None is `ExitCode.FINE`.
        settings: `module:Class` of the settings that its options change; "" where they are not known beforehand.
        resolve: the settings of a command line; None for a job that has none, and so no `--config` and `--set`.
        example: of `--set`.
        goes_on: what becomes of finished work when the job is stopped or fails.
        extra: of pip, that brings what its models need.
    """

    name: str
    description: str
    add_options: Callable[[JobParser], None]
    run: Callable[[Options], int | None]
    settings: str = ""
    resolve: Callable[[Options], Settings] | None = None
    example: str = ""
    goes_on: str = ""
    extra: str = ""

    def parser(self) -> JobParser:
        """All options of the job."""
        program = Path(sys.argv[0]).name
        own_file = Path(sys.modules[self.run.__module__].__file__ or "").name
        parser = JobParser(
            program if program == own_file else f"trackmill {self.name}", self.description, _import(self.settings)
        )
        self.add_options(parser)
        if self.resolve is not None:
            parser.option("--config", metavar="FILE", help="settings as TOML; the command line wins over it")
            example = f", e.g. {self.example}" if self.example else ""
            help_ = f"one setting{example}; may be given several times"
            parser.option("--set", action="append", default=[], metavar="KEY=VALUE", help=help_)
            parser.option("--print-config", action="store_true", help="print all settings as TOML, and do nothing")
            schema = "print a JSON Schema of the settings, for editors, and do nothing"
            parser.option("--print-schema", action="store_true", help=schema)
        version = f"trackmill {trackmill.__version__}"
        parser.add_argument("--version", action="version", version=version, help="print the version")
        return parser

    def read(self, arguments: Sequence[str] | None = None) -> Options:
        """The options of a command line. `values` in them are the settings that were given, nested.

        Raises:
            InputError: see `JobParser.read` and `layered`.
            SystemExit: `--help` or `--version` was answered.
        """
        words = list(sys.argv[1:] if arguments is None else arguments)
        parser = self.parser()
        if self.resolve is not None and _PRINTING & set(words):
            _require_nothing(parser)
        options = parser.read(words)
        if self.resolve is not None:
            changes = [(key, getattr(options, name)) for name, key in parser.keys.items()]
            options.values = layered(options.config, options.set, changes)
        return options

    def main(self, arguments: Sequence[str] | None = None, alone: bool = False) -> int:
        """Run from a command line; returns the exit code and raises nothing.

        Args:
            arguments: the command line (default: of this process).
            alone: the process ends with the job; so it does where the command line is its own.
        """
        if arguments is None:
            open_standard_streams()
            use_utf8()
        words = [str(word) for word in (sys.argv[1:] if arguments is None else arguments)]
        running = False

        def started() -> None:
            nonlocal running
            running = True

        try:
            with stopped_by_sigterm(), printable_streams(), logging_to_stderr(), failing_threads_are_told():
                try:
                    return self._run(words, started, alone or arguments is None)
                except SystemExit as ended:
                    if not running:  # --help and --version
                        flush_stdout()
                        return ExitCode.FINE
                    error = RuntimeError(f"something called sys.exit({ended.code!r}) in the middle of the work")
                    return report_failure(error.with_traceback(ended.__traceback__), self.name, words, self.goes_on)
                except BrokenPipeError:
                    discard_stdout()
                    return ExitCode.FINE
                except BaseException as error:
                    with contextlib.suppress(OSError):
                        flush_stdout()
                    return report_failure(with_advice(error, self.extra), self.name, words, self.goes_on)
        except BaseException as error:  # a signal while the frame itself is put up or taken down
            return report_failure(error, self.name, words, self.goes_on)

    def _run(self, words: Sequence[str], started: Callable[[], None], alone: bool) -> int:
        options = self.read(words)
        if alone:
            _refuse_what_is_forgotten(options)
        started()
        if self.resolve is not None and options.print_config:
            from trackmill.pipeline.console.print_config import as_toml

            print(as_toml(self.resolve(options)))
            flush_stdout()
            return ExitCode.FINE
        if self.resolve is not None and options.print_schema:
            import json

            print(json.dumps(type(self.resolve(options)).model_json_schema(), indent=1))
            flush_stdout()
            return ExitCode.FINE
        code = self.run(options)
        flush_stdout()
        return ExitCode.FINE if code is None else code


def _refuse_what_is_forgotten(options: Options) -> None:
    """`memory://` is for programs that go on after the job; of a command's process nothing would be left."""
    output = getattr(options, "output", None)
    if isinstance(output, str) and protocol_of(output) == "memory":
        raise InputError(f"--output {redact(output)}: {NOTHING_STAYS}")


_PRINTING = {"--print-config", "--print-schema"}


def _import(path: str) -> type[Settings] | None:
    module, _, name = path.partition(":")
    found: Any = getattr(importlib.import_module(module), name) if path else None
    return found  # type: ignore[no-any-return]


def _require_nothing(parser: argparse.ArgumentParser) -> None:
    """Settings can be printed without saying where the output goes."""
    for action in parser._actions:
        action.required = False
    for group in parser._mutually_exclusive_groups:
        group.required = False
