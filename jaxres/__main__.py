"""`python -m jaxres`."""

import sys

from jaxres.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
