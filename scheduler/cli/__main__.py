"""`python -m scheduler.cli` is `mloc`, also where the package is not installed."""

from scheduler.cli import main

main()
