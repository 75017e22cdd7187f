"""Hyperparameter search for DeepMLF (arXiv:2504.11082), with Ray Tune and Optuna.

>>> import deepmlf
>>> experiment = deepmlf.Experiment("runs/first")
>>> model = deepmlf.Predictor.open("runs/model")

A name is imported when it is first used: ``import deepmlf`` alone takes neither torch nor Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deepmlf.version import __version__ as __version__

if TYPE_CHECKING:
    from deepmlf.analysis.experiment import Experiment, resume, search
    from deepmlf.analysis.verdict import confirm
    from deepmlf.config.trial import TrialConfig
    from deepmlf.data.dataset import Dataset
    from deepmlf.data.formats.importing import import_dataset
    from deepmlf.errors import DeepMLFError
    from deepmlf.inference.predictor import Predictor
    from deepmlf.model.deepmlf import DeepMLF

_WHERE = {
    "search": "analysis.experiment:search",
    "resume": "analysis.experiment:resume",
    "confirm": "analysis.verdict:confirm",
    "Experiment": "analysis.experiment:Experiment",
    "import_dataset": "data.formats.importing:import_dataset",
    "Dataset": "data.dataset:Dataset",
    "DeepMLF": "model.deepmlf:DeepMLF",
    "Predictor": "inference.predictor:Predictor",
    "TrialConfig": "config.trial:TrialConfig",
    "DeepMLFError": "errors:DeepMLFError",
}

__all__ = [
    "Dataset", "DeepMLF", "DeepMLFError", "Experiment", "Predictor", "TrialConfig", "confirm", "import_dataset",
    "resume", "search",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
