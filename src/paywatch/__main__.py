"""`python -m paywatch`."""

from paywatch.cli import main

main()
