"""The command line. It alone in the library knows papermill; each command has a module of its own."""
