"""The project's own exceptions.

Every error that a user can meet derives from `PtsamError`. Its text names the
value that was given, what would be valid, and the next step to take. The
family derives from `Exception` and not from `RuntimeError`, because superqt's
generator workers swallow a `RuntimeError` without telling anyone.
"""

from __future__ import annotations


class PtsamError(Exception):
    """Base of all errors that are explained to the user."""


class InputError(PtsamError):
    """Images, masks or options that cannot be used as given."""


class BackboneError(PtsamError):
    """A frozen SAM that cannot be found, read or used."""


class DownloadError(BackboneError):
    """Weights that could not be fetched or did not pass their check."""


class PromptFileError(PtsamError):
    """A learned prompt file that cannot be read, or does not fit."""


class TrainingError(PtsamError):
    """A training run that cannot start or go on."""


class OutOfMemoryError(PtsamError):
    """The device ran out of memory; the text says what to change."""
