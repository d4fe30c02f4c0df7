"""Everything that codegym raises on its own behalf.

    CodegymError
    ├── UnknownNameError   a name that is not in a table (also a ValueError)
    ├── MissingExtraError  a name whose optional dependency is not installed
    ├── TaskError          a task that cannot be judged or asked about
    │   └── TaskSourceError    a bad row: names the source, the row and the field
    ├── SandboxError       the sandbox failed, not the program in it
    └── ScorerError        a scorer in another process failed, or is gone

A candidate program's failure is never here: it is data, a `Verdict`.
"""


class CodegymError(Exception):
    """Base class, for the `except` clause that people write."""


class UnknownNameError(CodegymError, ValueError):
    """A name that is not in its table; the message lists the choices."""


class MissingExtraError(CodegymError, ImportError):
    """A table entry whose optional dependency is missing; the message names the extra to install."""


class TaskError(CodegymError, ValueError):
    """A task that cannot be used as asked, for example one without tests."""


class TaskSourceError(TaskError):
    """A row of a task source that is not a valid task; the message names source, row and field."""


class SandboxError(CodegymError, RuntimeError):
    """The sandbox itself failed, twice. Never to be read as a wrong program, never a reward."""


class ScorerError(CodegymError, RuntimeError):
    """A scorer in another process failed, does not answer, or is gone. Never a score, never a reward."""
