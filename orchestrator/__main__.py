"""`python -m orchestrator` is `tlvm`."""

from orchestrator.cli import main

main()
