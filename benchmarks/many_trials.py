"""How a search's own work grows with its number of trials; one JSON line. Linux only.

Real searches whose trials do nothing, two at a time, each size with a driver of its own. What is left is what the
search costs: sampling, scheduling, records, Ray. With --begun it is what going on with a long one costs; the sampler is
that of the search then (`mixed` is what `auto` stands for), and its peak memory includes the making of the trials.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.parts.synthetic_experiment import make_experiment
from benchmarks.trial_overhead import importable_by_workers
from deepmlf.data.synthetic import make_synthetic

EPOCHS = 3
SLICE = 50


def no_training(config: Any, report: Any, *, out_dir: Path, **options: Any) -> None:
    """A trial that does nothing, with a learning curve of its own."""
    floor = abs(config.model.num_fusion_tokens - 8) / 10
    for epoch in range(1, config.training.epochs + 1):
        metrics = {"stage": "fusion", "epoch": epoch, "fusion_epoch": epoch, "valid/MAE": floor + 1 / epoch}
        report(metrics | ({"finished": "full"} if epoch == config.training.epochs else {}), None)
    (out_dir / "ended").write_text(str(time.time()))


def measure(folder: Path, trials: int, sampler: str) -> dict[str, Any]:
    """Figures of one search; in a process of its own, whose peak memory is the driver's."""
    from deepmlf.analysis.results import write_results
    from deepmlf.tune.experiment.stored import open_experiment
    from deepmlf.tune.search import run_search
    from deepmlf.tune.settings import SearchSettings

    before, memory = time.process_time(), _peak_megabytes()
    summary = run_search(
        SearchSettings(
            data=str(folder / "data"),
            space="mosi",
            lm="tiny-random",
            storage=str(folder),
            name=f"trials-{trials}",
            trials=trials,
            epochs=EPOCHS,
            concurrent=2,
            sampler=sampler,
            scheduler="none",
            train_function="benchmarks.many_trials:no_training",
            quiet=True,
        )
    )
    cpu, peak = time.process_time() - before, _peak_megabytes()
    if summary.states["COMPLETE"] != trials:
        raise RuntimeError(f"{trials} trials: {summary.states}")
    ended = sorted(float(path.read_text()) for path in Path(summary.experiment).glob("trials/*/ended"))
    began = time.perf_counter()
    write_results(open_experiment(summary.experiment))
    return {
        "trials": trials,
        "seconds": summary.seconds,
        "seconds_per_trial_at_first": round((ended[SLICE] - ended[0]) / SLICE, 4),
        "seconds_per_trial_at_last": round((ended[-1] - ended[-SLICE - 1]) / SLICE, 4),
        "driver_cpu_seconds_per_trial": round(cpu / trials, 4),
        "driver_peak_mb_before": memory,
        "driver_peak_mb": peak,
        "seconds_of_results_parquet": round(time.perf_counter() - began, 2),
        "journal_mb": round((Path(summary.experiment) / "optuna.journal").stat().st_size / 1e6, 2),
    }


def measure_resumed(folder: Path, begun: int, trials: int, sampler: str) -> dict[str, Any]:
    """Figures of a search of so many synthetic trials that goes on with further ones, in a process of its own."""
    from deepmlf.tune.changes import SearchChanges
    from deepmlf.tune.decide.searcher import OptunaSearcher
    from deepmlf.tune.material import open_material
    from deepmlf.tune.search import resume_search

    data = str(folder / "data")
    experiment = make_experiment(
        folder, begun, name=f"begun-{begun}", epochs=EPOCHS, scheduler="none", data=data, lm="tiny-random",
        material=open_material(data, "tiny-random"), sampler=sampler, concurrent=2, quiet=True,
        train_function="benchmarks.many_trials:no_training",
    )  # fmt: skip
    suggest, proposals = OptunaSearcher.suggest, []

    def timed(searcher: OptunaSearcher, trial_id: str) -> Any:
        proposals.append((time.perf_counter(), time.process_time()))
        proposal = suggest(searcher, trial_id)
        proposals[-1] = (proposals[-1][0], time.process_time() - proposals[-1][1])
        return proposal

    OptunaSearcher.suggest = timed  # type: ignore[method-assign]
    began, before = time.perf_counter(), time.process_time()
    summary = resume_search(experiment, changes=SearchChanges(trials=begun + trials))
    cpu = time.process_time() - before
    if summary.states["COMPLETE"] != begun + trials:
        raise RuntimeError(f"{begun} and {trials} trials: {summary.states}")
    drawn = sorted(seconds for _, seconds in proposals if seconds > 0.01)
    return {
        "begun": begun,
        "trials": trials,
        "seconds_to_first_proposal": round(proposals[0][0] - began, 1),
        "cpu_seconds_of_a_proposal": [round(drawn[len(drawn) // 2], 2), round(drawn[-1], 2)],
        "driver_cpu_seconds": round(cpu, 1),
        "driver_peak_mb": _peak_megabytes(),
        "journal_mb": round((experiment / "optuna.journal").stat().st_size / 1e6, 2),
    }


def _peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 250, 500, 1000])
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--begun", type=int, help="go on, by --trials, with a search of so many synthetic trials")
    options = parser.parse_args()
    importable_by_workers()
    with tempfile.TemporaryDirectory() as scratch:
        make_synthetic(Path(scratch) / "data", sizes=(49, 24, 24))
        sizes = []
        for trials in options.trials:
            with multiprocessing.get_context("spawn").Pool(1) as one:
                if options.begun is None:
                    sizes.append(one.apply(measure, (Path(scratch), trials, options.sampler)))
                else:
                    sizes.append(one.apply(measure_resumed, (Path(scratch), options.begun, trials, options.sampler)))
    print(json.dumps({"benchmark": "many_trials", "sampler": options.sampler, "epochs": EPOCHS, "sizes": sizes}))


if __name__ == "__main__":
    main()
