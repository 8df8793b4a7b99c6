"""``python -m harmonia`` is the command line."""

from harmonia.cli import main

main()
