"""The command line: parse, call one workflow, render. Nothing is decided here, and nothing heavy is loaded for help."""

from orchestrator.cli.app import main

__all__ = ["main"]
