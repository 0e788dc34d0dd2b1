"""`python -m midstream`."""

from midstream.cli.main import main

main()
