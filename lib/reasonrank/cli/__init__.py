"""The command line. It alone in the library knows papermill; each command has a module of its own."""

DEADLINE = 4 * 3600.0  # seconds for a notebook
