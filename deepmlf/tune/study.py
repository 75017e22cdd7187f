"""An experiment on disk: its manifest, its Optuna study and its trials' folders. No Ray here."""

import json
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from deepmlf.errors import SearchError

OBJECTIVE = "valid/MAE"
OVERRIDES = "overrides"
"""User attribute of a trial: its overrides, as JSON."""
FAIL_REASON = "fail_reason"
"""User attribute of a FAIL trial."""
MANIFEST_FILE = "search.json"
JOURNAL_FILE = "optuna.journal"
METRICS_FILE = "metrics.jsonl"


def trial_folder(experiment: Path, number: int) -> Path:
    """The folder of a trial, the same on every resume; its id is the name that the experiment began with."""
    trials = experiment / "trials"
    return next(trials.glob(f"{number:04d}_*"), trials / f"{number:04d}_{experiment.name}")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The recorded epochs of a trial, in order; a line torn by a kill is left out."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return []
    lines: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        try:
            metrics = json.loads(line)
        except ValueError:
            continue
        lines[metrics["epoch"]] = metrics
    return [lines[epoch] for epoch in sorted(lines)]


def read_manifest(experiment: Path) -> dict[str, Any]:
    """The manifest of an experiment.

    Raises:
        SearchError: If there is none.
    """
    try:
        manifest: dict[str, Any] = json.loads((experiment / MANIFEST_FILE).read_text())
    except (OSError, ValueError):
        raise SearchError(f"{experiment}: not an experiment (no {MANIFEST_FILE} there)") from None
    return manifest


def create_study(experiment: Path) -> optuna.Study:
    """A new study in the experiment's folder."""
    return optuna.create_study(
        study_name=experiment.name, storage=_storage(experiment), direction="minimize", load_if_exists=True
    )


def open_study(experiment: Path) -> optuna.Study:
    """The Optuna study of an experiment.

    Raises:
        SearchError: If there is none.
    """
    if not (experiment / JOURNAL_FILE).is_file():
        raise SearchError(f"{experiment}: not an experiment (no {JOURNAL_FILE} there)")
    # The one study in the journal, whatever the folder is called by now.
    return optuna.load_study(study_name=None, storage=_storage(experiment))


def repair_journal(experiment: Path) -> None:
    """Undo what a driver that died while writing left behind; only for who holds the experiment's lock.

    A torn last line would swallow the next one and make the journal unreadable, and Optuna waits half a minute for
    a lock that nobody holds.
    """
    path = experiment / JOURNAL_FILE
    path.with_name(f"{JOURNAL_FILE}.lock").unlink(missing_ok=True)
    content = path.read_bytes() if path.is_file() else b""
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _storage(experiment: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(experiment / JOURNAL_FILE)))
