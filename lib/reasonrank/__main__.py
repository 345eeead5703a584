"""`python -m reasonrank`: run notebooks, publish their outputs, sum a run up."""

import signal
import sys

from .cli.main import main


def _interrupt(number: int, frame: object) -> None:
    """End on SIGTERM as on an interrupt, so that no kernel outlives its runner."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
