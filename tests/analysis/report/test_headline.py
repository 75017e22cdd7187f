"""What the report's first screen says, of experiments that differ in how much is known."""

import json
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs_version

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.records import Records, TrialRecord, load_records
from deepmlf.analysis.report.headline import FirstScreen, curve_against_baselines, first_screen, next_step
from deepmlf.analysis.report.page import analyze
from deepmlf.analysis.report.plot import whole_numbers
from deepmlf.analysis.standing import Standing, standing_of
from deepmlf.tune.experiment.stored import open_experiment

COMMANDS = {"confirm": "deepmlf confirm E", "export": "deepmlf export E exported"}
MAX_BYTES = 2_000_000


def known_of(place: Path) -> tuple[Records, Standing, TrialRecord]:
    experiment = open_experiment(place)
    records = load_records(experiment)
    return records, standing_of(experiment), records.ranked[0]


def screen_of(place: Path, confirmations: tuple[dict[str, object], ...] = ()) -> FirstScreen:
    return first_screen(*known_of(place), confirmations, COMMANDS)


def test_what_to_use_answers_the_papers_questions(tmp_path: Path) -> None:
    place = make_experiment(tmp_path, 12, epochs=9, space="demo")
    best = known_of(place)[2]
    choices = screen_of(place).choices
    assert [choice.value for choice in choices] == [
        str(best.settings[name]) for name in ("model.fusion_depth", "model.num_fusion_tokens", "curriculum.name")
    ]
    assert [choice.published for choice in choices] == [
        "5 to 7 MM blocks",
        "8 to 20 tokens",
        "audiovisual encoder first",
    ]


@pytest.mark.parametrize(
    ("trials", "running", "is_confirmed", "expected"),
    [(12, 2, False, "deepmlf resume"), (3, 0, False, "--trials 20"), (12, 0, False, "deepmlf confirm E"),
     (12, 0, True, "deepmlf export E exported")],
)  # fmt: skip
def test_the_next_step_is_the_first_that_lacks(
    tmp_path: Path, trials: int, running: int, is_confirmed: bool, expected: str
) -> None:
    standing = known_of(make_experiment(tmp_path, trials, running=running, epochs=4, space="demo", scheduler="none"))[1]
    assert expected in next_step(standing, COMMANDS, is_confirmed=is_confirmed).command


def test_doubts_are_told_from_what_is_known(tmp_path: Path) -> None:
    place = make_experiment(tmp_path, 12, epochs=4, space="demo", scheduler="none")
    alone, whole = screen_of(place).findings
    assert alone.is_doubt
    assert alone.text.endswith("on validation: seeds alone may do as much.")
    assert (whole.text, whole.is_doubt) == ("It was trained to its end, 4 fusion epochs.", False)


@pytest.mark.parametrize(
    ("baseline", "text", "is_doubt"),
    [
        (9.0, "It beats the mean, a simpler model (9.0000).", False),
        (0.01, "It does not beat simpler models: the mean.", True),
    ],
)
def test_simpler_models_are_held_against_it(tmp_path: Path, baseline: float, text: str, is_doubt: bool) -> None:
    records, standing, best = known_of(make_experiment(tmp_path, 12, epochs=4, space="demo", scheduler="none"))
    standing.baselines["the mean"] = baseline
    findings = first_screen(records, standing, best, (), COMMANDS).findings
    assert [one.is_doubt for one in findings if one.text == text] == [is_doubt]
    plot = curve_against_baselines(records, best, standing)
    assert plot.figure is not None
    [line] = [trace for trace in plot.figure.data if trace.name == "the mean"]
    assert set(line.y) == {baseline}
    [own] = [trace for trace in plot.figure.data if trace.name == f"trial {best.number}, the best"]
    assert dict(zip(own.x, own.y, strict=True)) == best.curve


def test_a_confirmation_speaks_in_place_of_the_lead(tmp_path: Path) -> None:
    place = make_experiment(tmp_path, 12, epochs=4, space="demo", scheduler="none")
    settings = [{"trial": 3, "seeds": [1, 2]}, {"trial": 5, "seeds": [1, 2], "is": "worse"}]
    report = {"objective": "test/MAE", "verdict": "holds", "asked": 2, "settings": settings, "unbeaten": ["ridge"]}
    texts = {one.text: one.is_doubt for one in screen_of(place, (report,)).findings}
    holds = "test/MAE: the search's choice, trial 3, is better on test than trial 5, beyond what seeds alone may do"
    assert texts[f"{holds} (95% intervals that hold together)."] is False
    assert texts["the search's choice, trial 3, does not beat ridge on test."] is True
    assert not any("seeds alone may do as much" in text for text in texts)


@pytest.mark.parametrize(
    ("most", "step"), [(0, 1), (1, 1), (10, 1), (11, 2), (20, 2), (50, 5), (95, 10), (10_000, 1000)]
)
def test_counts_have_whole_ticks_ten_at_most(most: int, step: int) -> None:
    assert whole_numbers(range(most + 1)) == {"tick0": 0, "dtick": step, "tickformat": "d"}


def test_the_page_of_two_hundred_trials_is_small(tmp_path: Path) -> None:
    page = Path(analyze(make_experiment(tmp_path, 200), quiet=True)["report"])
    assert page.stat().st_size <= MAX_BYTES


def test_the_page_draws_with_what_its_bundle_knows(tmp_path: Path) -> None:
    page = Path(analyze(make_experiment(tmp_path, 40), quiet=True)["report"]).read_text()
    assert page.count(f"plotly.js (basic - minified) v{get_plotlyjs_version()}") == 1
    drawn = [json.loads(part.partition("</script>")[0]) for part in page.split('<script type="application/json">')[1:]]
    assert {trace["type"] for figure in drawn for trace in figure["data"]} == {"bar", "scatter"}
