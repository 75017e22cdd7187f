"""What the shell offers at TAB; each function imports what it needs, as a person waits for it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from click import Context, Parameter
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from deepmlf.data.task import Task


def folders(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders; URIs are typed in full."""
    return [CompletionItem(incomplete, type="dir")]


def spaces(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Search spaces by name, and files."""
    from deepmlf.tune.names import known_spaces

    return _files(incomplete) + _beginning(known_spaces(), incomplete)


def published(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Published settings, and folders of experiments."""
    from deepmlf.tune.names import published_settings

    return folders(ctx, param, incomplete) + _beginning(published_settings(), incomplete)


def samplers(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Samplers."""
    from deepmlf.tune.names import SAMPLERS

    return _beginning(SAMPLERS, incomplete)


def schedulers(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Schedulers."""
    from deepmlf.tune.names import SCHEDULERS

    return _beginning(SCHEDULERS, incomplete)


def metrics(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Objectives: the dataset's if it is named and here, those of all protocols otherwise; after a comma the second."""
    from deepmlf.data.task import METRICS_OF
    from deepmlf.training.metrics import metric_names
    from deepmlf.training.reports import TRAINED_PARAMETERS, VALID

    # Without the option's value, which is asked for here, click leaves arguments unread.
    task = _task_of(ctx.params.get("dataset") or next(iter(ctx.args), None))
    names = [name for protocol in METRICS_OF.values() for name in protocol] if task is None else metric_names(task)
    first, comma, _ = incomplete.rpartition(",")
    known = [f"{VALID}{name}" for name in dict.fromkeys(names)] + [TRAINED_PARAMETERS] * bool(comma)
    return _beginning((f"{first}{comma}{name}" for name in known if name != first), incomplete)


def _task_of(dataset: str | None) -> "Task | None":
    from deepmlf.data.dataset import Dataset
    from deepmlf.errors import DeepMLFError

    if dataset is None or "://" in dataset:  # a bucket may take long to answer
        return None
    try:
        return Dataset.open(dataset).info.task
    except DeepMLFError:
        return None


def language_models(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of language models that `lm get` needs no hub for, and folders or files."""
    from deepmlf.model.lm_store import SMOLLM2, SMOLLM2_INSTRUCT, TINY_RANDOM

    return _files(incomplete) + _beginning((SMOLLM2, SMOLLM2_INSTRUCT, TINY_RANDOM), incomplete)


def known_datasets(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of datasets whose labels and metrics are known."""
    from deepmlf.data.task import KNOWN

    return _beginning(KNOWN, incomplete)


def settings(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Dotted names of settings, up to their value."""
    from deepmlf.config.trial import TrialConfig

    return _beginning((f"{name}=" for name in TrialConfig().flat()), incomplete)


def devices(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Devices; a number after ``cuda:`` is typed."""
    return _beginning(("auto", "cpu", "cuda"), incomplete)


def _files(incomplete: str) -> list[CompletionItem]:
    # Before any names: at this one bash forgets what came earlier.
    return [CompletionItem(incomplete, type="file")]


def _beginning(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
