"""A search over the model's settings is analysed, also where one is a number in some trials and a list in others."""

import json
from pathlib import Path

import pyarrow.parquet as pq
from click.testing import CliRunner

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.cli import cli

SPACE = """
def space(trial):
    tokens = trial.suggest_categorical("model.num_fusion_tokens", [0, 4])
    settings = {"model.fusion_depth": 2, "model.num_fusion_tokens": tokens}
    if tokens:
        settings["model.fusion_groups"] = trial.suggest_categorical("model.fusion_groups", ["shared", "separate"])
    low = trial.suggest_float("lowest_gate", -4.0, 0.0)
    rises = trial.suggest_categorical("gates_rise", [False, True])
    return settings | {"model.gate_init": [low, 0.0] if rises else low}
"""


def test_a_search_over_the_models_settings_is_analysed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    experiment = make_experiment(tmp_path, 12, epochs=3, space=str(tmp_path / "mine.py"), events=True)
    result = CliRunner().invoke(cli, ["analyze", str(experiment), "--json"])
    assert result.exit_code == 0, result.output
    table = pq.read_table(experiment / "results.parquet")
    assert set(table["model.num_fusion_tokens"].to_pylist()) == {0, 4}
    inits = [json.loads(value) for value in table["model.gate_init"].to_pylist()]
    assert {type(value) for value in inits} == {float, list}
    assert all(value[1] == 0.0 for value in inits if isinstance(value, list))
    assert set(table["model.fusion_groups"].to_pylist()) == {"shared", "separate"}
    assert (experiment / "report" / "index.html").is_file()
