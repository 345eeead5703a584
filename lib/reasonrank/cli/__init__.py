"""The command line. It alone in the library knows papermill; longer commands have modules of their own."""

DEADLINE = 4 * 3600.0  # seconds for a notebook
