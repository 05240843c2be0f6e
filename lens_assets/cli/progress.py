"""What a chain started from the command line says while a step runs: the step's own log lines, not too many of them."""

from __future__ import annotations

import sys
import time

import typer

BETWEEN = 20.0
"""Seconds between two lines of one chain where the output is no terminal (a log, CI)."""
WIDTH = 100


class Progress:
    """One line, rewritten, on a terminal; elsewhere a new line every :data:`BETWEEN` seconds at most."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self._told = time.monotonic()

    def __call__(self, message: str) -> None:
        """Tell what a running step says; only the first line of it."""
        line = message.strip().split("\n", 1)[0][:WIDTH]
        if self.live:
            typer.echo(f"\r\033[K  {line}", nl=False)
        elif time.monotonic() - self._told >= BETWEEN:
            self._told = time.monotonic()
            typer.echo(f"          {line}")

    def done(self, line: str) -> None:
        """A line that stays."""
        typer.echo(("\r\033[K" if self.live else "") + line)
        self._told = time.monotonic()
