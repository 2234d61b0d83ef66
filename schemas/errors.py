"""What goes wrong for a reason that we name. Each job turns these classes into its exit code and one line.

Everything else that is raised is a bug of ours: it is reported with its traceback and never blamed on anybody.
"""

from __future__ import annotations


class InputError(ValueError):
    """An option, a setting, a file or a URL that somebody gave cannot be used; the text says which and how to mend it.

    A plain `ValueError` means that code called other code wrongly, which is a bug when it reaches a job.
    """


class MissingPackage(ImportError):
    """An optional package is not installed; the text says what to type."""


class StorageError(OSError):
    """Files could not be listed, read or written, also after several attempts."""


class JobError(RuntimeError):
    """The work could not be done, through no mistake in the command; the text says why and what to do."""
