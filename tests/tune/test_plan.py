"""A search is planned once: what a command opens, checks and makes, and how often."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from deepmlf import cli
from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.errors import SearchError
from deepmlf.model import lm_store
from deepmlf.tune import plan
from deepmlf.tune.decide.orders import Orders
from deepmlf.tune.experiment import stored
from deepmlf.tune.messages import TrialOrder
from deepmlf.tune.plan import plan_search
from deepmlf.tune.settings import SearchSettings
from tests.tune.experiments import settings
from tests.tune.parts import TERMS, bound

SPACE = """
BASE = {"model.fusion_depth": 1, "model.av_frames": 6, "model.av_layers": 1, "curriculum.name": "joint"}


def space(trial):
    return {"model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 2, 5)}
"""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often this process, the driver, opens a dataset, reads a language model's facts, loads a space and makes
    objectives."""
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str, what: str) -> None:
        before = getattr(owner, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            counts[what] += 1
            return before(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    count(Dataset, "open", "dataset")
    count(lm_store, "facts", "language model")
    count(plan, "load_space", "space")
    count(plan, "space_of", "space")
    count(stored, "make_objectives", "objectives")
    return counts


ONCE = {"dataset": 1, "language model": 1, "space": 1, "objectives": 1}


@pytest.mark.ray
def test_search_resume_and_confirm_open_everything_once(
    ray_cluster: None, tmp_path: Path, small_data: Path, counted: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    experiment = tmp_path / "first"
    words = ["--space", str(tmp_path / "mine.py"), "--lm", "tiny-random", "--trials", "2", "--epochs", "1"]
    words += ["--scheduler", "none", "--storage", str(tmp_path), "--name", "first", "--concurrent", "2", "--json"]
    for command in (
        ["search", str(small_data), *words],
        ["resume", str(experiment), "--json"],
        ["confirm", str(experiment), "--top", "2", "--seeds", "2", "--json"],
        ["confirm", str(experiment), "--top", "2", "--seeds", "2", "--json"],  # all of it is there: a resume
    ):
        counted.clear()
        cli.main(command)
        assert counted == ONCE, command
        assert json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_plan_writes_nothing(tmp_path: Path, small_data: Path) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    asked = settings(small_data, tmp_path / "runs", space=str(tmp_path / "mine.py"))
    made = plan_search(asked)
    assert made.experiment.place.folder == tmp_path / "runs" / "search"
    assert made.experiment.manifest.settings == made.settings
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize(
    ("epochs", "warmup", "first_rung"),
    [(3, 1.0, 1), (6, 1.0, 2), (9, 1.0, 2), (15, 1.0, 3), (15, 3.0, 4), (15, 0.0, 3), (4, 0.0, 1), (100, 1.0, 20)],
)
def test_no_rung_lies_within_the_warm_up(
    tmp_path: Path, small_data: Path, epochs: int, warmup: float, first_rung: int
) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    asked = settings(
        small_data, tmp_path, space=str(tmp_path / "mine.py"), epochs=epochs,
        overrides={"training.warmup_epochs": warmup},
    )  # fmt: skip
    assert plan_search(asked).experiment.manifest.settings.first_rung == first_rung


def test_a_first_rung_within_the_longest_warm_up_that_is_drawn_is_refused(tmp_path: Path, small_data: Path) -> None:
    drawn = "trial.suggest_float('training.warmup_epochs', 0.0, 3.0, step=1.0)"
    (tmp_path / "mine.py").write_text(f"def space(trial):\n    return {{'training.warmup_epochs': {drawn}}}\n")
    asked = {"space": str(tmp_path / "mine.py"), "epochs": 20, "overrides": {"model.fusion_depth": 1}}
    assert plan_search(settings(small_data, tmp_path, **asked)).settings.first_rung == 4
    with pytest.raises(SearchError) as caught:
        plan_search(settings(small_data, tmp_path, **asked, grace_period=3))
    assert str(caught.value) == (
        "--first-rung 3: lies within the warm-up of 3 epochs; take at least 4, or shorten training.warmup_epochs"
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"scheduler": "none", "grace_period": 2}, "--first-rung 2: --scheduler none stops no trial"),
        ({"epochs": 9, "grace_period": 10}, "--first-rung 10: is later than the last of 9 epochs"),
    ],
)
def test_a_first_rung_that_could_stop_nothing_is_refused(
    asked: dict[str, Any], message: str, tmp_path: Path, small_data: Path
) -> None:
    with pytest.raises(SearchError) as caught:
        plan_search(settings(small_data, tmp_path, **asked))
    assert str(caught.value) == message


def test_the_manifest_has_the_sampler_that_auto_was(tmp_path: Path, small_data: Path) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    asked = {"space": str(tmp_path / "mine.py"), "sampler": "auto"}
    one = plan_search(settings(small_data, tmp_path, **asked))
    two = plan_search(settings(small_data, tmp_path, **asked, objectives=["valid/MAE", "valid/Corr"]))
    assert [plan.experiment.manifest.settings.sampler for plan in (one, two)] == ["mixed", "tpe"]


def test_priors_that_train_the_same_are_one_and_can_be_left_out(tmp_path: Path, small_data: Path) -> None:
    """The language model has four layers, to which the depth is cut; the last prior leaves its tokens open."""
    (tmp_path / "mine.py").write_text(
        """
BASE = {"model.fusion_start": 0.0}
PRIORS = [
    {"model.fusion_depth": depth, "model.num_fusion_tokens": tokens} for depth, tokens in ((9, 2), (8, 2), (8, 4))
] + [{"model.fusion_depth": 9}]


def space(trial, lm):
    depth = trial.suggest_int("model.fusion_depth", 1, 10)
    tokens = trial.suggest_int("model.num_fusion_tokens", 2, 5)
    return {"model.fusion_depth": min(depth, lm.num_layers), "model.num_fusion_tokens": tokens}
"""
    )
    asked = settings(small_data, tmp_path, space=str(tmp_path / "mine.py"), trials=9)
    queue = plan_search(asked).queue
    assert [tuple(prior.values()) for prior in queue] == [(9, 2), (8, 4), (9,)]
    assert plan_search(asked.model_copy(update={"priors": False})).queue == []


def test_a_trials_setting_is_validated_at_the_draw_and_in_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    import optuna

    validated: list[str] = []
    from_dict = TrialConfig.from_dict.__func__  # type: ignore[attr-defined]

    def noted(cls: type[TrialConfig], tree: Any) -> TrialConfig:
        validated.append("draw")
        return from_dict(cls, tree)

    def space(trial: optuna.Trial) -> dict[str, Any]:
        return {"model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 2, 5)}

    orders = Orders(bound(space), TERMS)
    monkeypatch.setattr(TrialConfig, "from_dict", classmethod(noted))
    order = orders.draw(optuna.create_study().ask())
    assert validated == ["draw"]
    sent = pickle.dumps(order)
    here = pickle.loads(sent)
    assert here == order
    assert here.config.placed(data="elsewhere").data.path == "elsewhere"
    assert validated == ["draw"]  # it is read back by TrialOrder itself, once
    assert max(len(sent), len(cloudpickle.dumps(order))) < 700  # Ray writes it into its records, for each trial
    assert str(order) == "trial 0"
    assert isinstance(here, TrialOrder)


def test_settings_are_plain_and_read_back(small_data: Path, tmp_path: Path) -> None:
    asked = settings(small_data, tmp_path)
    assert SearchSettings.model_validate(json.loads(json.dumps(asked.model_dump()))) == asked


@pytest.mark.parametrize(("sampler", "scheduler", "warns"), [
    ("grid", "asha", True), ("grid", "median", True), ("grid", "none", False), ("tpe", "asha", False),
])  # fmt: skip
def test_a_grid_whose_trials_are_stopped_is_warned_of(
    tmp_path: Path, small_data: Path, capsys: pytest.CaptureFixture[str], sampler: str, scheduler: str, warns: bool
) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    asked = {"space": str(tmp_path / "mine.py"), "sampler": sampler, "scheduler": scheduler, "quiet": False}
    plan_search(settings(small_data, tmp_path, **asked))
    said = (
        f"deepmlf: --scheduler {scheduler} stops the worse trials of a grid early, so that means over the others "
        "flatter their settings; to compare settings say --scheduler none"
    )
    assert (said in capsys.readouterr().err) == warns


@pytest.mark.parametrize(("sampler", "is_told"), [("auto", True), ("curves", True), ("tpe", False)])
def test_a_space_that_draws_no_candidates_is_told(
    small_data: Path, tmp_path: Path, capsys: Any, sampler: str, is_told: bool
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "BASE = {'model.fusion_depth': 1}\n"
        "def space(trial):\n"
        "    done = len(trial.study.trials)\n"
        "    return {'model.num_fusion_tokens': trial.suggest_int('model.num_fusion_tokens', 2, 8) + 0 * done}\n"
    )
    plan_search(settings(small_data, tmp_path, space=str(path), sampler=sampler, quiet=False))
    taken = "mixed" if sampler == "auto" else sampler
    told = (
        f"deepmlf: --space {path}: AttributeError: 'Nearby' object has no attribute 'study': it draws for Optuna's own "
        f"trials alone, so that --sampler {taken} cannot weigh settings and draws at random in its place; "
        "ask the trial for parameters and its number alone, or take --sampler tpe\n"
    )
    assert capsys.readouterr().err == (told if is_told else "")
