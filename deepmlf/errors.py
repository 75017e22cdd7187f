"""Errors that are meant for users: one line that says what is wrong and what to do."""


class DeepMLFError(Exception):
    """A condition the user can mend. The CLI prints its text on one line and exits with 2.

    >>> try:
    ...     deepmlf.TrialConfig.from_overrides({"model.fusion_dept": 3})
    ... except DeepMLFError as error:
    ...     print(error)
    model.fusion_dept: no such setting (did you mean model.fusion_depth?); model has language_model, ...
    """


class ConfigError(DeepMLFError):
    """An unknown or impossible setting."""


class DataError(DeepMLFError):
    """A dataset that cannot be read or used."""


class LanguageModelError(DeepMLFError):
    """A language model that cannot be found or used."""


class PackageIndexError(DeepMLFError):
    """A package that the package index has not given."""


class PlaceError(DeepMLFError):
    """Data, a language model or a device that workers cannot reach or use."""


class CheckpointError(DeepMLFError):
    """A checkpoint that is missing, torn or foreign."""


class DamagedError(DeepMLFError):
    """A file of an experiment that is not as it was written."""


class NonFiniteLossError(DeepMLFError):
    """The loss or a validation metric became NaN or infinite."""


class StorageError(DeepMLFError):
    """Storage of an experiment that workers cannot reach."""


class SearchError(DeepMLFError):
    """A search that cannot start or go on."""


def first_line(error: BaseException) -> str:
    """An error's text on one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
