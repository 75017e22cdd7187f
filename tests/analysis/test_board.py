"""`deepmlf tensorboard`: what a real TensorBoard server answers of an experiment."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from benchmarks.parts.served import Served, columns, one_more, served
from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.events.writer import STATE_NUMBERS, TrialWriter, step_of
from deepmlf.training.reports import read_reports
from deepmlf.tune.experiment.layout import trial_folder
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import OVERRIDES
from tests.command import deepmlf

ENDINGS = {"RUNNING": "STATUS_UNKNOWN", "FAIL": "STATUS_FAILURE"}


def settings_of(experiment: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """State and setting of each trial by the name of its folder."""
    return {
        trial_folder(experiment, trial.number).name: (trial.state.name, json.loads(trial.user_attrs[OVERRIDES]))
        for trial in open_experiment(experiment).study.get_trials()
    }


@pytest.mark.slow
def test_hparams_have_every_trial_with_settings_metrics_and_state(shown_experiment: Path, server: Served) -> None:
    about = server.experiment()
    rows = server.session_groups(about)
    trials = settings_of(shown_experiment)
    assert rows.keys() == trials.keys()
    known = {info["name"] for info in about["hparamInfos"]}
    lacking = 0
    for name, (state, setting) in trials.items():
        row, lines = rows[name], [report.metrics for report in read_reports(shown_experiment / "trials" / name)]
        assert row["hparams"] == setting  # and nothing of a conditional parameter that it lacks
        assert row["hparams"].keys() <= known
        lacking += len(known - row["hparams"].keys())
        (session,) = row["sessions"]
        assert session["status"] == ENDINGS.get(state, "STATUS_SUCCESS")
        assert (session["endTimeSecs"] == 0) == (state == "RUNNING")
        values = {metric["name"]["tag"]: metric["value"] for metric in row["metricValues"]}
        fusion = [line for line in lines if "fusion_epoch" in line]
        assert values["best/MAE"] == pytest.approx(min(line["valid/MAE"] for line in fusion))
        assert values["valid/MAE"] == pytest.approx(fusion[-1]["valid/MAE"])
        assert values["trial/state"] == STATE_NUMBERS[state]
        assert values.get("trial/training.lr_av") == pytest.approx(setting.get("training.lr_av"))
        assert values["fusion_epoch"] == fusion[-1]["fusion_epoch"]
    assert lacking > 0
    assert [info["name"]["tag"] for info in about["metricInfos"]][:5] == [
        "best/MAE", "trial/state", "fusion_epoch", "trial/training.lr_av", "valid/MAE",
    ]  # fmt: skip


@pytest.mark.slow
def test_no_curve_has_a_step_twice(shown_experiment: Path, server: Served) -> None:
    for name, tags in server.get("scalars", "tags").items():
        lines = [report.metrics for report in read_reports(shown_experiment / "trials" / name)]
        for tag in tags:
            steps = [step for step, _ in server.steps(name, tag)]
            assert steps == sorted(set(steps)), (name, tag)
        fused = [line["fusion_epoch"] for line in lines if "fusion_epoch" in line]
        assert [step for step, _ in server.steps(name, "train/loss")] == fused == list(range(1, len(fused) + 1))
        alone = [line["epoch"] for line in lines if "fusion_epoch" not in line]
        assert [step for step, _ in server.steps(name, "pre_fusion/train/loss")] == alone


@pytest.mark.slow
def test_every_chart_of_the_layout_has_data_and_every_trial_its_text(shown_experiment: Path, server: Served) -> None:
    charts = [chart for category in server.get("custom_scalars", "layout")["category"] for chart in category["chart"]]
    drawn = {
        chart["title"]
        for chart in charts
        for tag in chart["multiline"]["tag"]
        for trial in settings_of(shown_experiment)
        if server.get("custom_scalars", "scalars", run=trial, tag=tag)["tag_to_events"]
    }
    # The made-up curves lack what these show.
    assert {chart["title"] for chart in charts} - drawn == {
        "Gates of the FFN over epochs", "Phases of an epoch", "MM blocks in use",
    }  # fmt: skip
    for name in settings_of(shown_experiment):
        (note,) = server.get("text", "text", run=name, tag="trial/text_summary")
        assert "deepmlf train" in note["text"]


@pytest.mark.slow
def test_attention_is_a_curve_for_trials_that_have_ended_and_nothing_is_a_histogram(
    shown_experiment: Path, server: Served
) -> None:
    shown = server.get("scalars", "tags")
    for folder in (shown_experiment / "trials").glob("[0-9]*"):
        best = [line for line in [report.metrics for report in read_reports(folder)] if "attention/0" in line]
        has_ended = open_experiment(shown_experiment).study.trials[int(folder.name[:4])].state.is_finished()
        assert ("over_frames/attention" in shown[folder.name]) == bool(best and has_ended)
    assert not any(server.get("histograms", "tags").values())


@pytest.mark.slow
def test_one_trial_is_shown_alone(shown_experiment: Path) -> None:
    trial = trial_folder(shown_experiment, 0)
    with served(trial) as server:
        server.until(lambda: "." in server.get("scalars", "tags"))
        assert [step for step, _ in server.steps(".", "valid/MAE")] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_search_that_has_just_begun_is_followed_until_ctrl_c(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = make_experiment(tmp_path / "made", 2, epochs=3, running=1, events=True)
    columns(made)
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("search.json", "optuna.journal"):
        shutil.copy(made / name, begun)
    with served(begun) as server:
        assert server.url.startswith("http://127.0.0.1:")
        shutil.copytree(made / "trials", begun / "trials")
        server.until(lambda: len(server.get("scalars", "tags")) == 2)
        trial = trial_folder(begun, 1)
        later = one_more(read_reports(trial)[-1])
        TrialWriter(trial, purge_step=step_of(later)).write(later, {})
        server.until(lambda: len(server.steps(trial.name, "train/loss")) == step_of(later))
        assert server.stop() == 0
    told = f"deepmlf: {begun}: no trials yet; they appear as they start\nTensorBoard: {server.url}\n"
    assert capfd.readouterr().err == told


def test_what_cannot_be_shown_is_told_in_one_line(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 1, epochs=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, message in (
            ((tmp_path,), f"{tmp_path}: neither an experiment (no search.json there) nor a trial's folder"),
            ((experiment, "--port", port), f"port {port} is in use; choose another by --port, or --port 0 for a free"),
            ((experiment, "--host", "192.0.2.1"), "--host 192.0.2.1 --port 6006: cannot be listened on (Cannot assign"),
        ):
            result = deepmlf("tensorboard", *arguments)
            assert result.returncode == 2
            assert result.stderr.startswith(f"deepmlf: {message}")
            assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_two_hundred_trials_are_all_there_and_their_events_are_small(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 200, epochs=15, events=True)
    columns(experiment)
    files = list(experiment.glob("trials/*/events*"))
    assert sum(path.stat().st_size for path in files) < 200 * 10_000
    with served(experiment) as server:
        server.until(lambda: len(server.get("text", "tags")) == 200)
        before = server.cpu_seconds()  # seconds of a clock would be those of what else runs here, too
        assert len(server.session_groups(server.experiment())) == 200
        assert server.cpu_seconds() - before < 1.0
