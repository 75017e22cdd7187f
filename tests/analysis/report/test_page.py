"""The report of an experiment: its numbers, its sentences, and what becomes of it where little is known yet."""

import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from benchmarks.parts.synthetic_experiment import FAILURE, REFUSAL, make_experiment
from deepmlf.analysis.fidelity import common_fidelity
from deepmlf.analysis.records import load_records
from deepmlf.analysis.report import figures, study_figures
from deepmlf.analysis.report.answers import QUESTIONS, answer
from deepmlf.analysis.report.headline import leads
from deepmlf.analysis.report.page import analyze, statement
from deepmlf.analysis.results import write_results
from deepmlf.analysis.spending import failures_by_reason, rungs_of, spending_of
from deepmlf.analysis.verdict import compare
from deepmlf.cli import cli
from deepmlf.config.overrides import as_override, read_overrides
from deepmlf.config.trial import TrialConfig
from deepmlf.training.effective import effective_setting
from deepmlf.training.reports import TRAINED_PARAMETERS
from deepmlf.tune.experiment.layout import trial_folder
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import WARM_START, create_study
from deepmlf.tune.objective import make_objectives
from tests.analysis.report.depths import DEPTH, records_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 trials under ASHA, two of which failed."""
    experiment = make_experiment(tmp_path_factory.mktemp("finished"), 40, failed=(3, 7))
    write_results(open_experiment(experiment))
    return experiment


def test_leads_are_over_the_next_two_and_the_median_whatever_the_direction() -> None:
    for objective, sign in (("valid/MAE", 1), ("valid/Corr", -1)):
        found = leads(records_of({5: [sign * value for value in (1.0, 2.0, 4.0, 7.0)]}, objective), {})
        assert [round(lead.lead, 9) for lead in found] == [1, 3, 2]
    assert leads(records_of({5: [1.0, None]}), {}) == []


def test_a_lead_is_over_another_setting() -> None:
    records = records_of({5: [1.0, 2.0, 4.0, 7.0]})
    same = effective_setting(TrialConfig(), 30)
    records.trials[:2] = [replace(trial, setting=same) for trial in records.trials[:2]]
    assert [lead.of for lead in leads(records, {})] == ["trial 2", "trial 3", "the median of 4 complete trials"]
    records.trials[1] = replace(records.trials[1], repeats=0)
    assert [lead.of for lead in leads(records, {})] == ["trial 2", "trial 3", "the median of 3 complete trials"]


def test_rungs_and_spending_add_up(finished: Path) -> None:
    records = load_records(open_experiment(finished))
    rungs = rungs_of(records)
    assert [rung.epoch for rung in rungs] == [3, 9]
    for rung in rungs:
        stopped = [t.number for t in records.trials if t.state == "PRUNED" and t.epochs == rung.epoch]
        assert rung.stopped == stopped
        assert rung.reached == sorted(rung.went_on + rung.stopped + rung.failed)
        # Ray interpolates: one in three of all that got here is at least as good as the cut-off.
        values = [records.trials[number].curve[rung.epoch] for number in rung.reached]
        assert sum(value <= rung.cutoff for value in values) == pytest.approx(len(values) / 3, abs=1)
    assert set(rungs[1].reached) == set(rungs[0].went_on)
    spending = spending_of(records)
    lines = [json.loads(line) for path in finished.glob("trials/*/metrics.jsonl") for line in path.open()]
    assert spending.epochs == sum("fusion_epoch" in line for line in lines)
    assert spending.epochs_full == 40 * 15
    assert spending.device == "CPU"
    assert spending.hours == pytest.approx(sum(line.get("time/epoch_seconds", 0) for line in lines) / 3600)
    assert failures_by_reason(records) == {FAILURE: [3, 7]}


def test_seconds_in_the_results_count_stages_before_fusion_and_nothing_for_one_that_was_reused(finished: Path) -> None:
    rows = pq.read_table(finished / "results.parquet").to_pylist()
    reused = 0
    for folder in finished.glob("trials/*"):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
        last = [row for row in rows if row["trial"] == int(folder.name[:4])][-1]
        assert last["seconds"] == pytest.approx(sum(line.get("time/epoch_seconds", 0) for line in lines))
        assert (last["cpus"], last["gpus"]) == (1.0, 0.0)
        reused += "curriculum/av_reused" in lines[0]
    assert reused


def test_the_page_names_the_best_and_escapes_what_came_from_trials(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = analyze(finished)
    assert f"report: {facts['report']}" in capsys.readouterr().out.replace("\n", "")
    page = Path(facts["report"]).read_text()
    assert f"Trial <b>{facts['best_trial']}</b> has the best valid/MAE" in page
    assert "the loss became &lt;nan&gt; &amp; the trial ended" in page
    assert "<nan>" not in page
    assert f"deepmlf confirm {finished}" in page
    assert f"deepmlf export {facts['best_folder']} exported" in page
    assert "the search is still running" not in page


def test_the_command_that_trains_the_best_again_gives_its_configuration(finished: Path) -> None:
    page = Path(analyze(finished, quiet=True)["report"]).read_text()
    command = re.search(r"<pre>deepmlf train set (.*)</pre>", page)
    assert command
    pairs = command[1].replace("&#39;", "'").replace("&#34;", '"').split("--set ")[1:]
    config = TrialConfig.from_overrides(read_overrides([pair.strip().strip("'") for pair in pairs])).flat()
    best = load_records(open_experiment(finished)).complete[0]
    assert {name: value for name, value in config.items() if name != "data.path"} == {
        name: value for name, value in best.settings.items() if name != "data.path"
    }


@pytest.mark.parametrize("value", ["joint", "true", "0.5", None, 3, 0.25, [1, 2], True])
def test_an_option_is_read_back_as_the_value_it_was_made_of(value: object) -> None:
    assert read_overrides([as_override("model.x", value)]) == {"model.x": value}


def test_an_unfinished_search_is_reported_as_far_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = make_experiment(tmp_path, 12, running=2)
    facts = analyze(experiment)
    line = f"10 of 12 trials have ended: the search is still running, or `deepmlf resume {experiment}` goes on with it"
    assert line in capsys.readouterr().out
    assert line in Path(facts["report"]).read_text()
    assert facts["trials_unfinished"] == 2


def test_nothing_finished_is_said_not_raised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count, name in ((2, "running"), (1, "one")):
        experiment = make_experiment(tmp_path, count, running=count, name=name)
        page = Path(analyze(experiment)["report"]).read_text()
        assert f"none of {count} trials has ended: the search is still running" in capsys.readouterr().out
        assert "No trial has ended with a value yet, so there is no best one" in page
    for folder in (experiment / "trials").iterdir():  # only just started: nothing reported
        (folder / "metrics.jsonl").unlink()
    assert "No trial has ended with a value yet" in Path(analyze(experiment, quiet=True)["report"]).read_text()
    (experiment / "optuna.journal").unlink()
    shutil.rmtree(experiment / "trials")
    create_study(experiment, "one", None, make_objectives(["valid/MAE"]))  # killed before its first trial
    assert "No trial has started yet." in Path(analyze(experiment, quiet=True)["report"]).read_text()


def test_a_search_in_which_every_trial_failed_is_over_and_says_where_the_reasons_are(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 4, failed=(0, 1), refused=(2, 3))
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    said = "No trial has ended with a value, so there is no best one; what trials have reached and why they failed"
    assert f'{said} is in <a href="#trials">the table</a>.' in page
    assert "The best trial is thick" not in page
    refused = make_experiment(tmp_path, 2, refused=(0, 1), name="refused")
    assert "No epoch was timed." in Path(analyze(refused, quiet=True)["report"]).read_text()


def test_confirm_is_advised_only_where_it_has_something_to_compare(tmp_path: Path) -> None:
    for trials, is_advised in ((1, False), (2, True)):
        experiment = make_experiment(tmp_path, trials, scheduler="none", name=f"trials-{trials}")
        page = Path(analyze(experiment, quiet=True)["report"]).read_text()
        assert "deepmlf evaluate" in page
        assert ("deepmlf confirm" in page) == is_advised


def test_rungs_count_trials_that_have_ended_and_say_so(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 12, running=3)
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    records = load_records(open_experiment(experiment))
    assert any(trial.state == "RUNNING" and trial.epochs >= 3 for trial in records.trials)
    reached = rungs_of(records)[0].reached
    assert reached == [t.number for t in records.trials if t.state != "RUNNING" and t.epochs >= 3]
    assert "Rungs of asha, of trials that have ended; one in 3 is to go on." in page


def test_a_search_of_twelve_trials_has_a_useful_page(tmp_path: Path) -> None:
    """One complete trial of twelve left importances, parallel coordinates, slices and quality against cost empty."""
    experiment = make_experiment(tmp_path, 12, epochs=9, space="demo", sampler="mixed")
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    where = "at fusion epoch 1 of 9, reached by 12 of 12 trials"
    assert f"highest fidelity that three of four trials have reached: {where}." in page
    assert f"Seen {where}: the best mean of valid/MAE has " in page
    assert "Needs 5 trials" not in page
    assert "Needs two trials" not in page
    assert "What each setting explains of valid/MAE by itself" in page
    assert f"Left axis: valid/MAE {where}." in page
    for name in ("model.fusion_depth", "model.num_fusion_tokens", "curriculum.name"):
        assert f"<h4>{name}</h4>" in page  # slices
    assert "on the front, stopped early" in page


def test_slices_show_every_trial_at_the_fidelity_of_all(tmp_path: Path) -> None:
    records = load_records(open_experiment(make_experiment(tmp_path, 12, epochs=9, space="demo")))
    common = common_fidelity(records)
    [plot] = study_figures.slices(records, ["model.fusion_depth"])
    assert plot.figure is not None
    drawn = {(x, y) for trace in plot.figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    assert drawn == {(t.params["model.fusion_depth"], common.values[t.number][0]) for t in records.trials}


def test_the_front_is_of_those_that_none_beats_in_both(tmp_path: Path) -> None:
    records = load_records(open_experiment(make_experiment(tmp_path, 12, epochs=9, space="demo")))
    plot = figures.pareto(records, "", "parameters", lambda trial: trial.best[TRAINED_PARAMETERS])
    assert plot.figure is not None
    shown = {
        point for t in plot.figure.data if t.name.startswith("on the front") for point in zip(t.x, t.y, strict=True)
    }
    points = {(trial.value, trial.best[TRAINED_PARAMETERS]) for trial in records.ranked}
    assert shown == {
        (value, cost)
        for value, cost in points
        if not any(v <= value and c <= cost for v, c in points - {(value, cost)})
    }
    assert sum(len(trace.x) for trace in plot.figure.data) == 12


def test_two_objectives_have_a_front_and_each_its_history(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 16, objectives=["valid/Corr", "model/trained_parameters"])
    facts = analyze(experiment, quiet=True)
    page = Path(facts["report"]).read_text()
    assert f"the front has {len(facts['front'])}: trials {', '.join(map(str, facts['front']))}." in page
    for name in ("valid/Corr", "model/trained_parameters"):
        assert f"<h3>{name} by trial</h3>" in page
        assert f"<h3>What mattered for {name}</h3>" in page


def test_trials_of_an_earlier_experiment_are_left_out_and_numbers_stay(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 12, scheduler="none", warm=5)
    facts = analyze(experiment, quiet=True)
    records = load_records(open_experiment(experiment))
    assert [trial.number for trial in records.trials] == list(range(5, 17))
    assert facts["best_trial"] == records.complete[0].number
    assert not any(WARM_START in trial.user_attrs for trial in records.study.trials)


@pytest.mark.parametrize(
    ("scheduler", "text"),
    [("hyperband", "Rungs of hyperband"), ("median", "The scheduler, median, has no rungs."), ("none", "has no rungs")],
)
def test_every_scheduler_has_its_report(tmp_path: Path, scheduler: str, text: str) -> None:
    experiment = make_experiment(tmp_path, 12, scheduler=scheduler)
    assert text in Path(analyze(experiment, quiet=True)["report"]).read_text()


def test_objectives_that_never_differ_leave_nothing_to_explain(tmp_path: Path) -> None:
    space = tmp_path / "same.py"
    space.write_text(
        "def space(trial):\n    return {'training.lr_av': trial.suggest_float('training.lr_av', 0.001, 0.1)}\n"
    )
    objectives = ["valid/MAE", "model/trained_parameters"]
    experiment = make_experiment(tmp_path, 12, space=str(space), objectives=objectives)
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    assert "All trials have the same model/trained_parameters." in page


def test_what_was_drawn_is_shown_of_a_setting_that_could_not_be_built(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 6, refused=(1, 4), scheduler="none")
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    records = load_records(open_experiment(experiment))
    refused = records.trials[4]
    assert refused.settings == {}
    assert refused.drawn == refused.params
    assert records.trials[0].settings["model.fusion_layers"] is None  # a setting of None is one
    row = page.partition('<tr id="trial-4">')[2].partition("</tr>")[0]
    assert f'<data value="{refused.params["training.lr_fusion"]}">' in row
    assert REFUSAL in row
    groups = answer(DEPTH, records).groups
    assert sum(group.trials for group in groups) == 6
    assert sum(len(group.values) for group in groups) == 4


def test_a_best_trial_whose_metrics_are_lost_has_a_report(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 6, scheduler="none")
    best = analyze(experiment, quiet=True)["best_trial"]
    (trial_folder(experiment, best) / "metrics.jsonl").unlink()
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    assert f"Trial <b>{best}</b> has the best valid/MAE" in page
    assert "in fusion epoch" not in page.partition('id="best"')[2].partition("</p>")[0]


def test_only_stopped_trials_save_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = make_experiment(tmp_path, 12, failed=(2,), running=2, epochs=9)
    facts = analyze(experiment)
    stopped = [trial.epochs for trial in load_records(open_experiment(experiment)).trials if trial.state == "PRUNED"]
    assert stopped
    assert facts["fusion_epochs_saved"] == sum(9 - epochs for epochs in stopped)
    assert f"({facts['fusion_epochs_saved'] / (12 * 9):.0%} saved)" in capsys.readouterr().out


def test_a_curve_of_conditional_parameters_has_each_value_below_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    space = tmp_path / "conditional.py"
    space.write_text(
        "def space(trial):\n"
        "    curriculum = trial.suggest_categorical('curriculum.name', ['av_first', 'joint'])\n"
        "    setting = {'curriculum.name': curriculum, 'training.seed': trial.suggest_int('training.seed', 0, 1)}\n"
        "    name, value = ('model.fusion_depth', 3) if curriculum == 'joint' else ('curriculum.av_epochs', 7)\n"
        "    return setting | {name: trial.suggest_int(name, value, value)}\n"
    )
    analyze(make_experiment(tmp_path, 12, space=str(space), scheduler="none", epochs=3))
    table = capsys.readouterr().out.partition("Over seeds")[2].partition("table:")[0]
    above = next(line for line in table.splitlines() if "valid/MAE" in line)
    lines = itertools.takewhile(str.strip, table.partition(" ─")[2].splitlines()[1:])
    cells = [slice(m.start(), m.start() + len(m[0])) for m in re.finditer(r"\S+\s*", above)]
    heading, *rows = [[line[cell].strip() for cell in cells] for line in (above, *lines)]
    assert heading == ["curriculum.av_epochs", "curriculum.name", "model.fusion_depth", "valid/MAE", "seeds"]
    assert sorted(row[:3] for row in rows) == [["", "joint", "3"], ["7", "av_first", ""]]


def test_a_grid_over_seeds_is_recognised(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 18, space="ablations/depth", scheduler="none")
    write_results(open_experiment(experiment))
    records = load_records(open_experiment(experiment))
    assert answer(DEPTH, records).is_controlled
    assert not answer(QUESTIONS[1], records).is_controlled
    said = statement(answer(QUESTIONS[1], records), records)
    assert said.startswith("This search did not vary model.num_fusion_tokens. --space ablations/tokens ")


def test_a_confirmation_is_shown(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 12)
    assert "deepmlf confirm " in (page := Path(analyze(experiment, quiet=True)["report"]).read_text())
    assert "On the test split" not in page
    measured = {4: {1: {"MAE": 0.8125}, 2: {"MAE": 0.875}}, 6: {1: {"MAE": 0.875}, 2: {"MAE": 1.0}}, 7: {}}
    found = compare(measured, make_objectives(["valid/MAE"])[0])
    (experiment / "confirm-4-6-7-x2").mkdir()
    (experiment / "confirm-4-6-7-x2" / "confirm.json").write_text(json.dumps(found))
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    assert "these seeds do not tell the search&#39;s choice, trial 4, from trials 6 and 7 on test" in page
    # Differences -0.0625 and -0.125: mean -0.09375, standard error 0.03125; Student's t of 1 degree of freedom 12.706.
    assert "−0.0938" in page.replace("-0.0938", "−0.0938")
    assert '[<data value="-0.490' in page
    assert "<td>7</td><td>0</td><td>– ± –</td>" in page


def test_a_confirmation_of_an_earlier_release_is_to_be_made_again(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 12)
    found = {
        "settings": [{"trial": 4, "seeds": [1, 2], "mean": {"MAE": 0.8125}, "std": {"MAE": 0.0625}},
                     {"trial": 6, "seeds": [1, 2], "mean": {"MAE": 0.875}, "std": {"MAE": 0.125}}],
        "differences": {"MAE": {"mean": -0.0625, "low": -0.75, "high": 0.625}},
        "verdict": "holds", "objective": "MAE",
    }  # fmt: skip
    (experiment / "confirm-4-6-x2").mkdir()
    (experiment / "confirm-4-6-x2" / "confirm.json").write_text(json.dumps(found))
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    assert "MAE: compared as an earlier release did, which took chance for a difference too often" in page
    assert "<td>0.8125 ± 0.0625</td>" in page
    assert (
        f"<p>Train the best settings again with other seeds, and test them:</p><pre>deepmlf confirm {experiment}"
        in page
    )


@pytest.mark.slow
def test_the_report_of_an_experiment_at_a_uri_is_put_there_and_not_fetched_again(
    tmp_path: Path, own_home: Path
) -> None:
    experiment = make_experiment(tmp_path, 6)
    place = experiment.as_uri()
    facts = analyze(place, quiet=True)
    assert facts["report"] == f"{place}/report/index.html"
    page = experiment / "report" / "index.html"
    assert f"deepmlf evaluate {place}/trials/" in page.read_text()
    copy = open_experiment(place).folder / "report" / "index.html"
    copy.unlink()
    open_experiment(place)
    assert not copy.exists()


def test_analyze_gives_scripts_the_reports_path(finished: Path) -> None:
    result = CliRunner().invoke(cli, ["analyze", str(finished), "--json"])
    assert json.loads(result.stdout.splitlines()[-1])["report"] == str(finished / "report" / "index.html")
