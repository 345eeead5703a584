"""The two ways in which a command ends other than well; the exit code is a part of the contract."""


class CommandError(Exception):
    """A command that failed: exit code 1, the message on standard error."""

    code = 1


class UsageError(CommandError):
    """A command that was called wrongly, before anything was done: exit code 2."""

    code = 2
