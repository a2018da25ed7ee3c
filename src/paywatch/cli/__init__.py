"""The command line: what a person touches."""

from paywatch.cli.app import app, main

__all__ = ["app", "main"]
