"""The half of tlvm that runs on the machine: `python -m remote RUN_SPEC`. It never imports the orchestrator."""
