"""Parts of a search that tests put together by hand: spaces, orders, trials as Ray has them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmlf.config.trial import TrialConfig
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.tune.experiment.manifest import Manifest, write_manifest
from deepmlf.tune.messages import SearchTerms, TrialOrder
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.space.base import Base
from deepmlf.tune.space.bound import BoundSpace
from deepmlf.tune.space.load import SearchSpace
from deepmlf.tune.worker.wire import bare_config

LM = LanguageModelFacts(num_layers=4, width=64)
TERMS = SearchTerms(
    place="/runs/first", experiment_id="0", name="first", objectives=("valid/MAE",), train="module:train", threads=1,
    cache_gb=0.0, keep=1,
)  # fmt: skip


def bound(
    space: Callable[..., dict[str, Any]] | SearchSpace,
    lm: LanguageModelFacts = LM,
    base: Mapping[str, Any] = {"model.fusion_depth": 1},  # noqa: B006  never changed
) -> BoundSpace:
    """A space, or the function that makes one, on a language model and a base."""
    loaded = space if isinstance(space, SearchSpace) else SearchSpace("space", space, {}, [], "")
    return BoundSpace(loaded, Base.of(base), {"lm": lm})


def order(number: int, overrides: Mapping[str, Any] | None = None, **changes: Any) -> TrialOrder:
    """An order of a trial with some settings."""
    overrides = dict(overrides or {})
    config = TrialConfig.from_overrides(overrides)
    return TrialOrder.model_validate(
        {"number": number, "config": config, "overrides": overrides, "terms": TERMS} | changes
    )


@dataclass(eq=False)
class RayTrial:
    """What schedulers look at in a trial of Ray's."""

    trial_id: str
    config: dict[str, Any]

    @classmethod
    def of(cls, number: int) -> "RayTrial":
        return cls(f"ray{number}", bare_config(number))


def write_experiment(folder: Path, settings: SearchSettings, **changes: Any) -> Manifest:
    """Write the manifest of an experiment that nobody has searched."""
    facts: dict[str, Any] = {
        "space_source": "def space(trial):\n    return {}\n", "base": {}, "language_model": LM, "data_fingerprint": "0",
        "secret": None,
    }  # fmt: skip
    manifest = Manifest.now(settings, **(facts | changes))
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, manifest)
    return manifest
