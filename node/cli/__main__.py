"""`python -m node.cli`: the same as `pacsnode`."""

from node.cli import main

main()
