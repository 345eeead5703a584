"""For maintainers: publish a run, write the tables of README.md and docs/RESULTS.md."""
