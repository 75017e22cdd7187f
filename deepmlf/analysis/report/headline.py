"""The report's first screen: what to use, how sure that is, and what to do next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from deepmlf.analysis.next_steps import resume_command
from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.analysis.report.answers import QUESTIONS, value_of
from deepmlf.analysis.report.plot import ACCENT, GREY, Plot, page_plot, whole_numbers
from deepmlf.analysis.standing import Standing
from deepmlf.analysis.verdict import unbeaten_line, verdict_line

_RIVALS = 2
_DASHES = ("dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True)
class Choice:
    """One of the three settings that the paper asks about, as the best trial has it."""

    question: str
    value: str
    published: str
    """The paper's answer."""


@dataclass(frozen=True)
class Lead:
    """How far the best trial is ahead of another value."""

    of: str
    value: float
    lead: float
    """Above zero where the best trial is better."""


@dataclass(frozen=True)
class Finding:
    """One thing that says how sure the choice is."""

    text: str
    is_doubt: bool
    """Whether it speaks against the choice, or that it is not known."""
    anchor: str = ""
    """Under which a link finds it."""


@dataclass(frozen=True)
class NextStep:
    """The one command to run now."""

    why: str
    command: str


@dataclass(frozen=True)
class FirstScreen:
    """All of it, of an experiment with a best trial."""

    choices: list[Choice]
    leads: list[Lead]
    findings: list[Finding]
    next: NextStep
    plot: Plot


def first_screen(
    records: Records,
    standing: Standing,
    best: TrialRecord,
    confirmations: Sequence[dict[str, Any]],
    commands: Mapping[str, str],
) -> FirstScreen:
    """The first screen.

    Args:
        records: The experiment's trials.
        standing: How it stands.
        best: Its best trial.
        confirmations: What `deepmlf.analysis.verdict.confirm` found, the newest first.
        commands: ``confirm`` and ``export``, as command lines.
    """
    ahead = leads(records, standing.baselines)
    return FirstScreen(
        choices_of(best),
        ahead,
        findings_of(standing, best, ahead, confirmations),
        next_step(standing, commands, is_confirmed=any(map(_counts, confirmations))),
        curve_against_baselines(records, best, standing),
    )


def choices_of(best: TrialRecord) -> list[Choice]:
    """What the best trial has to say on the paper's questions."""
    found = ((question, value_of(best, question.setting)) for question in QUESTIONS)
    return [Choice(question.title, str(value), question.answer) for question, value in found if value is not None]


def findings_of(
    standing: Standing, best: TrialRecord, leads: Sequence[Lead], confirmations: Sequence[dict[str, Any]]
) -> list[Finding]:
    """How sure the choice is: by other seeds, by how far it was trained, by simpler models, by how many trials.

    Args:
        standing: Of the experiment.
        best: Its best trial.
        leads: Of that trial; the next setting's comes first.
        confirmations: What `deepmlf.analysis.verdict.confirm` found, the newest first.
    """
    board, findings = standing.leaderboard, []
    if confirmations:
        newest = confirmations[0]
        findings.append(Finding(f"{verdict_line(newest)}.", newest["verdict"] != "holds" or not _counts(newest)))
        if (line := unbeaten_line(newest)) is not None:
            findings.append(Finding(f"{line}.", True))
    elif leads:
        findings.append(
            Finding(
                f"It was trained with one seed and leads {leads[0].of} by {abs(leads[0].lead):.4f}, on validation: "
                "seeds alone may do as much.",
                True,
            )
        )
    if board.lead_of_a_stopped_trial:
        findings.append(Finding(f"{board.lead_of_a_stopped_trial}.", True, "stopped-best"))
    else:
        findings.append(Finding(f"It was trained to its end, {best.epochs} fusion epochs.", False))
    if standing.unbeaten:
        text = f"It does not beat simpler models: {'; '.join(standing.unbeaten)}."
        findings.append(Finding(text, True, "unbeaten"))
    elif standing.baselines:
        sign = standing.experiment.objectives[0].sign
        name, value = min(standing.baselines.items(), key=lambda one: sign * one[1])
        count = len(standing.baselines)
        rest = f", the best of {count} simpler models" if count > 1 else ", a simpler model"
        findings.append(Finding(f"It beats {name}{rest} ({value:.4f}).", False))
    if standing.missing is not None:
        findings.append(Finding(f"{standing.missing.what}.", True))
    return findings


def next_step(standing: Standing, commands: Mapping[str, str], *, is_confirmed: bool) -> NextStep:
    """What to do first: end the search, add trials where there are too few, confirm, or take the model home."""
    if standing.trials_unfinished:
        return NextStep("The search is not at its end. If nothing runs it, go on:", resume_command(standing.experiment))
    if standing.missing is not None:
        return NextStep("Too few trials can be compared. A larger search:", standing.missing.command)
    if not is_confirmed and len(standing.leaderboard.ranked) > 1:
        return NextStep("Train the best settings again with other seeds, and test them:", commands["confirm"])
    return NextStep("Take the model home:", commands["export"])


def curve_against_baselines(records: Records, best: TrialRecord, standing: Standing) -> Plot:
    """The best trial's first objective by fusion epoch, the next two trials', and simpler models' as lines across."""
    name = records.objectives[0].name
    title = f"{name} of trial {best.number}"
    if not best.curve:
        return Plot(title, None, missing="Its fusion epochs are not recorded.")
    figure = go.Figure()
    rivals = [trial for trial in records.ranked if trial.number != best.number and trial.repeats is None]
    for trial, dash in zip(rivals[:_RIVALS], ("solid", "dot"), strict=False):
        figure.add_scatter(
            x=list(trial.curve), y=list(trial.curve.values()), mode="lines", name=f"trial {trial.number}",
            line={"color": GREY, "width": 1.5, "dash": dash},
        )  # fmt: skip
    figure.add_scatter(
        x=list(best.curve), y=list(best.curve.values()), mode="lines+markers", name=f"trial {best.number}, the best",
        line={"color": ACCENT, "width": 3}, marker={"size": 6},
    )  # fmt: skip
    last = max(max(trial.curve, default=1) for trial in [best, *rivals[:_RIVALS]])
    for index, (label, value) in enumerate(standing.baselines.items()):
        figure.add_scatter(
            x=[1, max(last, 2)], y=[value, value], mode="lines", name=label,
            line={"color": GREY, "width": 1.5, "dash": _DASHES[index % len(_DASHES)]},
        )  # fmt: skip
    figure.update_xaxes(title="fusion epoch", **whole_numbers([1, last]))
    figure.update_yaxes(title=name)
    caption = "On the validation split." + (" Level lines: simpler models." if standing.baselines else "")
    return page_plot(title, figure, caption, height=340)


def leads(records: Records, baselines: Mapping[str, float]) -> list[Lead]:
    """The best trial's lead over the next two settings, the median complete trial and the baselines."""
    ranked = [trial for trial in records.ranked if trial.repeats is None]
    if not ranked or ranked[0].value is None:
        return []
    sign, best = records.objectives[0].sign, ranked[0].value
    simpler = [(f"the baseline {of}", value) for of, value in baselines.items()]
    return [Lead(of, value, sign * (value - best)) for of, value in _other_trials(records, ranked) + simpler]


def _counts(confirmation: Mapping[str, Any]) -> bool:
    """Whether it compared as this release does."""
    return "asked" in confirmation


def _other_trials(records: Records, ranked: list[TrialRecord]) -> list[tuple[str, float]]:
    best_of_each: dict[Any, TrialRecord] = {}
    for trial in ranked:
        best_of_each.setdefault(trial.number if trial.setting is None else trial.setting.key, trial)
    nexts = list(best_of_each.values())[1:3]
    others = [(_named(trial), trial.value) for trial in nexts if trial.value is not None]
    values = [trial.value for trial in records.counted if trial.value is not None]
    if len(values) > 1:
        middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
        others.append((f"the median of {len(values)} complete trials", middle))
    return others


def _named(trial: TrialRecord) -> str:
    """A trial and how far it got, if it was stopped."""
    return f"trial {trial.number}" + ("" if trial.is_complete else f", stopped at fusion epoch {trial.epochs}")
