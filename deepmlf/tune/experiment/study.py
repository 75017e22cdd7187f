"""The Optuna study of an experiment: a journal in its folder, or a database that others can read meanwhile.

The one door to Optuna's insides: what it has no public way for is done here, and nowhere else.
"""

import json
import math
import os
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from deepmlf.errors import SearchError, first_line
from deepmlf.files import drop_torn_line
from deepmlf.seal import sealed, unsealed
from deepmlf.training.reports import EpochReport
from deepmlf.tune.engines import require_insides
from deepmlf.tune.experiment.layout import JOURNAL
from deepmlf.tune.objective import Objective, values_of
from deepmlf.tune.settings import SearchSettings

STORAGE_VARIABLE = "DEEPMLF_STUDY_STORAGE"
WARM_START, OVERRIDES, FAIL_REASON = "warm_start", "overrides", "fail_reason"
BEST_VALUES, RESTARTS, PRIOR = "best_values", "restarts", "prior"
"""User attributes of a trial: the trial of an earlier experiment that it was taken over from; what its space made of
its parameters, as JSON; why it is FAIL; of two objectives those of its best epoch; why it started again, each time;
whether its parameters were given rather than drawn."""
_CONNECT_SECONDS = 5
_SECRETS = ("password", "passwd", "sslpassword")

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a search speaks for itself


def create_study(experiment: Path, name: str, url: str | None, objectives: tuple[Objective, ...]) -> optuna.Study:
    """A study for a new experiment.

    Raises:
        SearchError: If the database cannot be reached or has a study of that name.
    """
    try:
        study = optuna.create_study(
            study_name=name,
            storage=_open(experiment, url),
            directions=[objective.direction for objective in objectives],
            # A journal without a manifest is what a driver killed at its very start left behind.
            load_if_exists=url is None,
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise SearchError(f"study {name} exists in --study-storage; choose another --name") from None
    name_objectives(study, objectives)
    return study


def name_objectives(study: optuna.Study, objectives: tuple[Objective, ...]) -> None:
    """Let what shows a study call its values by their names; one that has them is not written to."""
    names = [objective.name for objective in objectives]
    if study.metric_names != names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(names)


def open_study(experiment: Path, settings: SearchSettings, url: str | None = None) -> optuna.Study:
    """The study of an experiment.

    Args:
        experiment: The experiment's folder.
        settings: What its manifest says of the search.
        url: Where the database is reached; None takes what the settings say. If it has no password, the environment
            variable ``DEEPMLF_STUDY_STORAGE`` may hold the same URL with it.

    Raises:
        SearchError: If there is none, or its database cannot be reached.
    """
    if settings.study_storage is None:
        if not (experiment / JOURNAL).is_file():
            raise SearchError(f"{experiment}: not an experiment (no {JOURNAL} there)")
        try:
            # The one study in the journal, whatever the folder is called by now.
            return optuna.load_study(study_name=None, storage=_open(experiment, None))
        except Exception as error:  # Optuna applies the lines as they are: a damaged one can raise nearly anything
            raise SearchError(
                f"{experiment / JOURNAL}: damaged ({type(error).__name__}: {first_line(error)})"
            ) from None
    url = url or settings.study_storage
    try:
        return optuna.load_study(study_name=settings.name, storage=_open(experiment, url))
    except KeyError:
        raise SearchError(f"--study-storage {without_password(url)}: has no study {settings.name}") from None


def own_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The experiment's trials, those taken over from an earlier one left out."""
    return [trial for trial in study.get_trials(deepcopy=False) if WARM_START not in trial.user_attrs]


def check_insides() -> None:
    """Refuse an Optuna without the insides that this file uses.

    Raises:
        SearchError: With the releases that have them.
    """
    study = optuna.create_study()
    storage = (
        "set_trial_user_attr", "set_trial_intermediate_value", "set_trial_state_values",
        "get_trial_id_from_study_id_trial_number", "set_study_system_attr", "get_study_system_attrs",
    )  # fmt: skip
    require_insides(
        "optuna",
        [(study, "_storage"), (study, "_study_id"), (study, "_get_trials"), (BaseDistribution, "_contains")]
        + [(BaseStorage, name) for name in storage],
    )


def get_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """One trial of a study; a list of all of them would cost the more, the longer a search has run."""
    return study._storage.get_trial(id_of(study, number))


def begun_trial(study: optuna.Study, number: int) -> optuna.Trial:
    """A trial that a driver has asked for and died before it was drawn: it can be drawn now."""
    return optuna.Trial(study, id_of(study, number))


def note(study: optuna.Study, number: int, attribute: str, value: Any) -> None:
    """Set a user attribute of a trial that has not ended, from outside of whoever has asked for it."""
    study._storage.set_trial_user_attr(id_of(study, number), attribute, value)


def study_attributes(study: optuna.Study) -> dict[str, Any]:
    """The study's system attributes, which tools beside Optuna share; not to be changed."""
    return study._storage.get_study_system_attrs(study._study_id)


def set_study_attributes(study: optuna.Study, attributes: dict[str, Any]) -> None:
    """Set system attributes of the study, in their order."""
    for name, value in attributes.items():
        study._storage.set_study_system_attr(study._study_id, name, value)


def record_epoch(
    study: optuna.Study, objectives: tuple[Objective, ...], number: int, report: EpochReport
) -> str | None:
    """Record a fusion epoch of a trial that runs: the first objective at its fidelity, once; of two the best so far.

    Args:
        study: The study.
        objectives: What is optimised.
        number: The trial.
        report: Any of its reports; one without a fidelity, or of an epoch that is known, changes nothing.

    Returns:
        Why the trial has failed, if an objective is not finite; it is not recorded then.
    """
    step, values = report.fidelity, values_of(objectives, report)
    if step is None or values is None:
        return None
    frozen = get_trial(study, number)
    if frozen.state != TrialState.RUNNING or step in frozen.intermediate_values:
        return None
    for objective, value in zip(objectives, values, strict=True):
        if not math.isfinite(value):
            return f"{objective.name} became {value} in fusion epoch {step}"
    if len(values) > 1 and report.is_whole:
        best = frozen.user_attrs.get(BEST_VALUES)
        if objectives[0].is_better(values[0], best[0] if best else None):
            note(study, number, BEST_VALUES, values)
    # ``Trial.report`` refuses studies of several objectives.
    study._storage.set_trial_intermediate_value(id_of(study, number), step, values[0])
    return None


def end_early(study: optuna.Study, number: int, values: list[float] | None) -> None:
    """Make a trial PRUNED, with the best that it came to; ``Study.tell`` would give it its last value."""
    study._storage.set_trial_state_values(id_of(study, number), TrialState.PRUNED, values)


def is_in_range(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution may draw a value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:  # a choice that is not one
        return False


def fixed_params(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was given rather than asked to draw."""
    return dict(trial.system_attrs.get("fixed_params", {}))


class Excerpt(optuna.Study):
    """A study of which a sampler sees some trials only.

    Args:
        study: The whole study.
        trials: Those that are seen.
    """

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        self.__dict__ |= study.__dict__
        self._seen = trials

    def _get_trials(self, deepcopy: bool = True, states: Any = None, use_cache: bool = False) -> list[FrozenTrial]:
        return [trial for trial in self._seen if states is None or trial.state in states]


class _SealedJournal(JournalFileBackend):
    """A journal whose lines have checksums, which Optuna and what else reads journals pass over.

    What others append, as optuna-dashboard does with notes, has none.
    """

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The lines from a number on; raises ValueError where one is not as it was written."""
        for line in super().read_logs(log_number_from):
            yield unsealed(line)
        with open(self._file_path, "rb") as file:  # Optuna passes over a last line that is no JSON, torn or not
            file.seek(max(self._log_number_offset.values()))
            following = file.readline()
        if following.endswith(b"\n"):
            json.loads(following)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines."""
        super().append_logs([sealed(log) for log in logs])


def id_of(study: optuna.Study, number: int) -> int:
    """What a storage knows a trial by."""
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def without_password(url: str) -> str:
    """A database URL that may be written down: no password in it, a SQLite file by its absolute path.

    Raises:
        SearchError: If it is no database URL.
    """
    parsed = _parse(url)
    query = {name: value for name, value in parsed.query.items() if name.lower() not in _SECRETS}
    return parsed._replace(password=None, query=sqlalchemy.util.immutabledict(query)).render_as_string()


def repair_journal(experiment: Path) -> None:
    """Undo what a driver that died while writing left behind.

    Optuna waits half a minute for a lock that nobody holds, and a torn line makes the journal unreadable.
    """
    path = experiment / JOURNAL
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    drop_torn_line(path)


def _open(experiment: Path, url: str | None) -> BaseStorage:
    if url is None:
        experiment.mkdir(parents=True, exist_ok=True)
        return JournalStorage(_SealedJournal(str(experiment / JOURNAL)))
    parsed = _parse(url)
    given = os.environ.get(STORAGE_VARIABLE)
    if given and without_password(given) == without_password(url) and parsed.password is None:
        parsed = _parse(given)
    waits = parsed.get_backend_name() in ("postgresql", "mysql", "mariadb")
    try:
        return RDBStorage(
            parsed.render_as_string(hide_password=False),
            engine_kwargs={
                "connect_args": {"connect_timeout": _CONNECT_SECONDS} if waits else {},
                "pool_pre_ping": True,
            },
        )
    except ImportError as error:
        raise SearchError(f"--study-storage {without_password(url)}: needs a driver ({_reason(error)})") from None
    except Exception as error:  # each database driver raises its own types
        raise SearchError(
            f"--study-storage {without_password(url)}: cannot be reached ({_reason(error)}); "
            f"a password is given by {STORAGE_VARIABLE} or in the URL"
        ) from None


def _parse(url: str) -> URL:
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        # The text may hold a password, so it is not repeated.
        raise SearchError(
            "--study-storage: not a database URL; expected e.g. sqlite:///study.db or postgresql://user@host/database"
        ) from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise SearchError(f"--study-storage {url}: keeps nothing; name a file, e.g. sqlite:///study.db")
        parsed = parsed.set(database=str(Path(parsed.database).absolute()))
    return parsed


def _reason(error: BaseException) -> str:
    return first_line(getattr(error, "orig", None) or error.__cause__ or error)
