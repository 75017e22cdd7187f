"""The manifest of an experiment: what was asked and found when its search began, and what a resume changed of it."""

import importlib.metadata
import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from deepmlf.config.earlier import overrides_of_all
from deepmlf.config.trial import first_fault
from deepmlf.data.own_metrics import OwnMetrics
from deepmlf.data.task import Direction
from deepmlf.errors import SearchError, first_line
from deepmlf.files import new_file
from deepmlf.model.lm_store import KnownLanguageModel, LanguageModelFacts
from deepmlf.places import Place
from deepmlf.seal import sealed, unsealed
from deepmlf.training.reports import LM_STATES
from deepmlf.tune.experiment.layout import MANIFEST
from deepmlf.tune.settings import SearchSettings

_PACKAGES = ("torch", "transformers", "ray", "optuna", "pyarrow")


class Change(BaseModel):
    """A resume by which a search became another one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time: str
    """Local time, ISO 8601."""
    command: list[str]
    """The command line, without any password."""
    before: dict[str, Any]
    """The settings that it changed, as they were."""


class Manifest(BaseModel):
    """What ``search.json`` holds. A later version may write more there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    """Tells the experiment from any other that was or will be at the same place."""
    settings: SearchSettings
    """What holds now, without any password."""
    changes: list[Change] = []
    """Of the settings since the search began, in their order."""
    copied_from: str | None = None
    """Where the experiment was before, if `deepmlf copy` brought it here."""
    space_source: str
    """The space's module: a resume uses the space that the search began with."""
    base: dict[str, Any]
    """Overrides common to all trials."""
    language_model: LanguageModelFacts
    """Sizes of what trials use of it."""
    language_model_fingerprint: str | None = None
    """Of its weights and configuration; None if a release up to 0.1 began the experiment."""
    language_models: dict[str, KnownLanguageModel] = {}
    """Sizes and fingerprints of all of them by name, where trials have one of several."""
    data_fingerprint: str
    own_metrics: dict[str, Direction] = {}
    """Of the user's, and which way each is better."""
    own_metrics_fingerprint: str | None = None
    """Of the file that computes them."""
    baselines: dict[str, dict[str, float]] = {}
    """Validation metrics of models without a language model, see `deepmlf.training.baselines`; none if a release
    up to 0.1 began it. Others are in trials' reports."""
    versions: dict[str, str]
    """Of the packages that matter."""
    git_commit: str | None
    """Of the code, if it ran from a repository."""
    command: list[str]
    """The command line, without any password."""
    started: str
    """Local time, ISO 8601."""

    @property
    def began(self) -> SearchSettings:
        """The settings that the search began with."""
        before: dict[str, Any] = {}
        for change in reversed(self.changes):
            before |= change.before
        return self.settings.model_copy(update=before)

    def changed(self, settings: Mapping[str, Any], base: dict[str, Any], secret: str | None) -> "Manifest":
        """The manifest of the search with other settings from now on, by this command.

        Args:
            settings: Those that change.
            base: Overrides common to all trials, from now on.
            secret: See `now`.
        """
        now = self.settings
        change = Change(
            time=_time(), command=_command(now, secret), before={name: getattr(now, name) for name in settings}
        )
        changes = {"settings": now.model_copy(update=settings), "base": base, "changes": [*self.changes, change]}
        return self.model_copy(update=changes)

    def copied(self, source: str) -> "Manifest":
        """The manifest of a copy of what is at `source`: of another identity, so that files of both are not mixed."""
        return self.model_copy(update={"id": uuid.uuid4().hex, "copied_from": source})

    def sizes_of(self, language_model: str) -> LanguageModelFacts:
        """Sizes of what a trial uses of its language model; of one among several, of the whole of it."""
        return self.language_models[language_model].facts if self.language_models else self.language_model

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the language models that trials may have, by name, as far as they are known."""
        if self.language_models:
            return {name: known.fingerprint for name, known in self.language_models.items()}
        known = self.language_model_fingerprint
        return {} if known is None else {self.settings.lm: known}

    def baseline_name(self, baseline: str, language_model: str) -> str:
        """The name of a baseline of a language model, with that one's where trials have one of several."""
        if not self.language_models:
            return baseline
        return baseline.replace(LM_STATES, f"{LM_STATES} {Path(language_model).name}", 1)

    @model_validator(mode="before")
    @classmethod
    def _as_begun(cls, tree: Any) -> Any:
        """What began before fingerprints were kept had no setting for special tokens, and read none."""
        if isinstance(tree, dict) and "language_model_fingerprint" not in tree and isinstance(tree.get("base"), dict):
            return tree | {"base": overrides_of_all(tree["base"])}
        return tree

    @classmethod
    def now(
        cls,
        settings: SearchSettings,
        *,
        space_source: str,
        base: dict[str, Any],
        language_model: LanguageModelFacts,
        language_model_fingerprint: str | None = None,
        language_models: dict[str, KnownLanguageModel] | None = None,
        data_fingerprint: str,
        own_metrics: OwnMetrics | None = None,
        baselines: dict[str, dict[str, float]] | None = None,
        secret: str | None,
    ) -> "Manifest":
        """The manifest of a search that begins now, on this machine, by this command.

        Args:
            secret: What the command line may hold and must not be written: the study storage's URL with its password.
        """
        return cls(
            id=uuid.uuid4().hex,
            settings=settings,
            space_source=space_source,
            base=base,
            language_model=language_model,
            language_model_fingerprint=language_model_fingerprint,
            language_models=language_models or {},
            data_fingerprint=data_fingerprint,
            own_metrics={} if own_metrics is None else own_metrics.directions,
            own_metrics_fingerprint=None if own_metrics is None else own_metrics.fingerprint,
            baselines=baselines or {},
            versions={package: importlib.metadata.version(package) for package in _PACKAGES},
            git_commit=_git_commit(),
            command=_command(settings, secret),
            started=_time(),
        )


def read_manifest(place: Place) -> Manifest:
    """The manifest of an experiment, from its folder on this machine.

    Raises:
        SearchError: If there is none, or it is damaged.
    """
    try:
        return manifest_of((place.folder / MANIFEST).read_text())
    except OSError:
        raise SearchError(f"{place}: not an experiment (no {MANIFEST} there)") from None
    except ValueError as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else first_line(error)
        raise SearchError(f"{place / MANIFEST}: damaged, or of another version ({reason})") from None


def write_manifest(experiment: Path, manifest: Manifest) -> None:
    """Write the manifest, whole or not at all."""
    with new_file(experiment / MANIFEST) as temporary:
        temporary.write_text(text_of(manifest))


def manifest_of(text: str | bytes) -> Manifest:
    """The manifest that a file holds.

    Raises:
        ValueError: If it is damaged.
    """
    return Manifest.model_validate(unsealed(json.loads(text)))


def text_of(manifest: Manifest) -> str:
    """What its file holds."""
    return json.dumps(sealed(manifest.model_dump()), indent=2)


def _command(settings: SearchSettings, secret: str | None) -> list[str]:
    return [word.replace(secret, settings.study_storage or "") if secret else word for word in sys.argv]


def _time() -> str:
    return datetime.now().isoformat(timespec="seconds")


def _git_commit() -> str | None:
    """The commit of the code, if it runs from a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
