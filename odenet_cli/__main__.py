"""`python -m odenet_cli …` is `odenet …`."""

import sys

from odenet_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
