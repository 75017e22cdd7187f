"""The Optuna study of an experiment: a journal in its folder, or a database that others can read meanwhile."""

import os
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL

from deepmlf.errors import SearchError
from deepmlf.places import first_line
from deepmlf.tune.experiment.remote import JOURNAL
from deepmlf.tune.objective import Objective
from deepmlf.tune.settings import read_manifest

STORAGE_VARIABLE = "DEEPMLF_STUDY_STORAGE"
WARM_START = "warm_start"
_CONNECT_SECONDS = 5
_SECRETS = ("password", "passwd", "sslpassword")

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a search speaks for itself


def create_study(experiment: Path, name: str, url: str | None, objectives: tuple[Objective, ...]) -> optuna.Study:
    """A study for a new experiment.

    Raises:
        SearchError: If the database cannot be reached or has a study of that name.
    """
    try:
        return optuna.create_study(
            study_name=name,
            storage=_storage(experiment, url),
            directions=[objective.direction for objective in objectives],
            # A journal without a manifest is what a driver killed at its very start left behind.
            load_if_exists=url is None,
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise SearchError(f"study {name} exists in --study-storage; choose another --name") from None


def open_study(experiment: Path, url: str | None = None) -> optuna.Study:
    """The study of an experiment.

    Args:
        experiment: The experiment's folder.
        url: Where the database is reached; None takes what the manifest says. If it has no password, the environment
            variable ``DEEPMLF_STUDY_STORAGE`` may hold the same URL with it.

    Raises:
        SearchError: If there is none, or its database cannot be reached.
    """
    settings = read_manifest(experiment)["settings"]
    kept = settings.get("study_storage")
    if kept is None:
        if not (experiment / JOURNAL).is_file():
            raise SearchError(f"{experiment}: not an experiment (no {JOURNAL} there)")
        try:
            # The one study in the journal, whatever the folder is called by now.
            return optuna.load_study(study_name=None, storage=_storage(experiment, None))
        except Exception as error:  # Optuna applies the lines as they are: a damaged one can raise nearly anything
            raise SearchError(
                f"{experiment / JOURNAL}: damaged ({type(error).__name__}: {first_line(error)})"
            ) from None
    url = url or kept
    try:
        return optuna.load_study(study_name=settings["name"], storage=_storage(experiment, url))
    except KeyError:
        raise SearchError(f"--study-storage {without_password(url)}: has no study {settings['name']}") from None


def own_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The experiment's trials, those taken over from an earlier one left out."""
    return [trial for trial in study.get_trials(deepcopy=False) if WARM_START not in trial.user_attrs]


def get_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """One trial of a study; a list of all of them would cost the more, the longer a search has run."""
    storage = study._storage
    return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


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


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that lacks its end: it would swallow the next one."""
    content = path.read_bytes() if path.is_file() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _storage(experiment: Path, url: str | None) -> BaseStorage:
    if url is None:
        experiment.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(experiment / JOURNAL)))
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
