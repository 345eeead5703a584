"""`python -m reasonrank`: the command line, see `cli.main`."""

import signal
import sys

from .cli.main import main

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no kernel outlives its runner
    sys.exit(main())
