"""What a search's end points to: looking, confirming, testing; and what too few trials lack."""

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.next_steps import closing_steps, more_command
from deepmlf.analysis.report.page import analyze
from deepmlf.analysis.standing import standing_of
from deepmlf.cli import cli
from deepmlf.tune.experiment.stored import open_experiment


def steps(experiment: Path, *, has_looked: bool = False) -> list[str]:
    opened = open_experiment(experiment)
    return closing_steps(opened, standing_of(opened).leaderboard, has_looked=has_looked)


def test_a_search_ends_with_looking_confirming_testing(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 6, epochs=4)
    best = open_experiment(experiment).place_of_trial(standing_of(open_experiment(experiment)).best_trial or 0)
    looks, *others = steps(experiment)
    assert looks == f"What came of it: deepmlf analyze {experiment}"
    assert (
        others
        == steps(experiment, has_looked=True)
        == [
            f"Whether it holds: deepmlf confirm {experiment}",
            f"Test metrics of the best: deepmlf evaluate {best} --split test",
        ]
    )
    printed = CliRunner().invoke(cli, ["analyze", str(experiment)]).stdout
    assert printed.endswith("\n".join(others) + "\n")


def test_one_trial_cannot_be_confirmed_and_none_not_tested(tmp_path: Path) -> None:
    one = make_experiment(tmp_path, 1, epochs=4)
    assert [line.split(":")[0] for line in steps(one)] == ["What came of it", "Test metrics of the best"]
    none = make_experiment(tmp_path, 2, epochs=4, refused=(0, 1), name="none")
    assert [line.split(":")[0] for line in steps(none)] == ["What came of it"]


def test_three_trials_say_what_they_lack_and_the_command_that_gets_it(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 3, epochs=9, space="demo", sampler="mixed")
    line = str(standing_of(open_experiment(experiment)).missing)
    command = f"deepmlf search set --space demo --lm smollm2-135m --trials 20 --epochs 9 --storage {tmp_path} "
    assert line == (
        "3 trials can be compared (at fusion epoch 1 of 9, reached by 3 of 3 trials); plots of settings need 5, "
        f"importances need 10. More of them: {command}--warm-start {experiment}"
    )
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    assert line in page
    assert page.count("Needs 5 trials at one fidelity, and has 3.") >= 2
    assert "Needs 10 trials at one fidelity, and has 3." in page


@pytest.mark.parametrize(("trials", "has_more"), [(7, True), (9, True), (10, False), (12, False)])
def test_from_ten_trials_on_nothing_is_missing(tmp_path: Path, trials: int, has_more: bool) -> None:
    missing = standing_of(open_experiment(make_experiment(tmp_path, trials, epochs=9, space="demo"))).missing
    assert (missing is not None) == has_more
    assert missing is None or "plots of settings" not in missing.what


def test_an_unfinished_search_is_to_go_on(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 12, running=8, epochs=9, space="demo")
    for folder in sorted((experiment / "trials").iterdir())[4:]:  # only just started
        (folder / "metrics.jsonl").unlink()
    line = str(standing_of(open_experiment(experiment)).missing)
    assert line.endswith(f"More of them: deepmlf resume {experiment}")


def test_the_command_asks_for_what_the_search_was_asked(tmp_path: Path) -> None:
    experiment = make_experiment(
        tmp_path, 4, epochs=4, sampler="random", seed=3, objectives=["valid/Corr", "valid/MAE"], concurrent=2,
        overrides={"model.dropout": 0.25},
    )  # fmt: skip
    words = shlex.split(more_command(open_experiment(experiment)))
    for option, value in (
        ("--objective", "valid/Corr,valid/MAE"), ("--concurrent", "2"), ("--set", "model.dropout=0.25"),
        ("--sampler", "random"), ("--seed", "4"), ("--scheduler", "none"),
    ):  # fmt: skip
        assert words[words.index(option) + 1] == value
    assert "--warm-start" not in words
