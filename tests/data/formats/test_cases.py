"""Every script of the shared folder of cases: what its input is, and what must come of it."""

import json
import re
import runpy
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepmlf.data.dataset import Dataset
from deepmlf.errors import SearchError
from deepmlf.tune.plan import plan_search
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.space.load import load_space
from tests.command import deepmlf

pytestmark = pytest.mark.usefixtures("own_home")  # a language model that is there would have its tokens counted


@dataclass(frozen=True)
class Told:
    """It is imported, and these lines and no others are on stderr, each matched by a pattern in this order."""

    lines: tuple[str, ...] = ()
    counts: tuple[int, int, int] = (24, 8, 8)
    missing: tuple[str, ...] = ()


def told(*lines: str, **more: Any) -> Told:
    return Told(lines, **more)


@dataclass(frozen=True)
class Refused:
    """One line on stderr, exit status 2, nothing written."""

    line: str
    lines_before: tuple[str, ...] = field(default=())


IMPORTS: dict[str, Told | Refused] = {
    "d00_clean": told(),
    "d01_left_padding_no_lengths": told(
        *(
            rf"split '{split}', {modality}: {count} of {count} rows begin with frames of zeros, left out as padding"
            for split, count in (("train", 24), ("valid", 8), ("test", 8))
            for modality in ("audio", "vision")
        )
    ),
    "d02_left_padding_with_lengths": told(
        *(
            rf"split '{split}', {modality}: {count} of {count} rows are padded in front; their last frames are taken, "
            rf"as many as '{modality}_lengths' says"
            for split, count in (("train", 24), ("valid", 8), ("test", 8))
            for modality in ("audio", "vision")
        )
    ),
    "d04_nan_in_vision": told(r"split 'train', vision: 4 values of NaN became 0 \(in 1 of 24 rows\)"),
    "d05b_float64_overflow_plus": Refused(
        r"split 'train', audio, row 3, frame 1, feature 2: 1e\+300 is too large to "
        r"calculate with in float32 .*mend or clip"
    ),
    "d06_minus_inf": told(r"split 'train', audio: 5 values of -inf became 0 \(in 1 of 24 rows\)"),
    "d06b_plus_inf": Refused(
        r"split 'train', vision, row 5, frame 1: holds 4 values of \+inf; put a number in their place, "
        r"e\.g\. vision\[np\.isposinf\(vision\)\] = 0"
    ),
    "d07_labels_n11_mult_layout": Refused(
        "split 'train': key 'raw_text' is missing; found id, audio, vision, labels, text; text holds embeddings, which "
        "no decoder LM can read; raw_text is for the transcripts: they are in label.csv"
    ),
    "d08_ids_bytes_triples": told(
        r"8 of 8 utterances of 'valid' are in 'train', too, by their ids \(the first is 'v0\$_\$0\.0\$_\$3\.4'\)",
        "8 of 8 utterances of 'test' are in 'train', too, by their ids",
        "8 of 8 utterances of 'test' are in 'valid', too, by their ids",
    ),
    "d09_text_none_and_nan": told(
        r"split 'train': 2 of 24 texts are missing \(None or NaN\) and taken as empty \(the first in row 2\)"
    ),
    "d10_text_token_lists": told(
        *(
            rf"split '{split}': {count} of {count} texts are lists of words, joined by blanks"
            for split, count in (("train", 24), ("valid", 8), ("test", 8))
        )
    ),
    "d11_text_bytes_gbk": Refused(
        r"split 'train', raw_text, row 0: holds bytes that are not UTF-8; decode them first, .*\.decode\('gb18030'\)"
    ),
    "d12_text_bert_only": Refused(
        "split 'train': key 'raw_text' is missing; found .*; text_bert holds token ids of BERT, which "
        "no decoder LM can read; raw_text is for the transcripts: they are in label.csv"
    ),
    "d13_lengths_longer_than_ids": Refused("split 'train': 24 ids, but 25 entries in 'vision_lengths'"),
    "d14_lengths_beyond_frames": Refused(
        "split 'train', audio, row 0: length 40 is outside 0 to 12; mend 'audio_lengths', or leave it out"
    ),
    "d15_lengths_zero": told(
        r"split 'train', audio: 1 of 24 rows have frames other than zero beyond their length \(the first is row 0\)",
        "split 'train', audio: 1 of 24 utterances have no frames",
    ),
    "d16_mixed_feature_dims": Refused("split 'train', audio, row 7: 3 features, but 5 before"),
    "d17_mosei_seven_labels": Refused(
        "split 'train': a row of 'regression_labels' must have one label, but has 7; keep"
    ),
    "d17b_labels_1n": told(),
    "d18_split_dev": told("split 'dev' is taken as 'valid'"),
    "d19_bert_mm_tuples": told(
        "split 'dev' is taken as 'valid'",
        *(f"split '{split}': .* texts are lists of words, joined by blanks" for split in ("train", "valid", "test")),
    ),
    "d20_features_all_zero_rows": told(
        "split 'train', audio: 6 of 24 utterances have no frames",
        "no utterance of test has audio, though those of train and valid have",
    ),
    "d21_utterance_level_features": Refused(
        r"split 'train', audio, row 0: must be \[frames, features\], but has 1 axes; one vector per utterance is one "
        r"frame, audio\[:, None, :\]"
    ),
    "d22_torch_tensors": Refused(r"names torch\..* torch tensors must be stored as tensor\.numpy\(\)"),
    "d23_pandas_series": Refused(r"names pandas\..* pandas objects must be stored as \.to_numpy\(\)"),
    "d24_ordered_dict": told(),
    "d25_numpy_str_scalars": told(),
    "d26_protocol5_fortran": told(),
    "d27_gzip": told(),
    "d28_joblib": Refused(r"is compressed with zlib, as joblib\.dump does; joblib\.load it and write it again"),
    "d28b_joblib_plain": Refused(r"joblib\.dump wrote must be read with joblib\.load"),
    "d29_npz": Refused(r"is a numpy archive \(\.npz\); np\.load it and write it again with pickle\.dump"),
    "d30_git_lfs_pointer": Refused("is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`"),
    "d31_html_page": Refused("is a web page, e.g. of a download that was refused"),
    "d32_all_nul": Refused("is full of NUL bytes: damaged; fetch it again"),
    "d34_id_in_two_splits": told(
        r"8 of 8 utterances of 'test' are in 'train', too, by their ids \(the first is 'avid0\$_\$0'\): results on "
        "'test' would be of data that is not new"
    ),
    "d35_sims_as_mosi": told(
        r"no label is beyond 1 and all are steps of 0\.2: if this is CH-SIMS, import it with --dataset sims"
    ),
    "d37_sims_ids_repeat": Refused(
        r"split 'train': id '0000' occurs more than once \(rows 0 and 6\); put what tells them apart in front"
    ),
    "d38_meld_one_word_and_empty": told(r"split 'train': 2 of 24 texts are empty \(the first in row 0\)"),
    "d40_huge_text": told(),
    "d41_label_string": Refused("split 'train', regression_labels, row 0: must hold numbers, but holds '1,5'"),
    "d42_constant_label": told("split 'valid': every label is 1; Corr is 0 by definition there"),
    "d43_train_tiny": Refused("split 'train': holds one utterance; training needs two at least"),
    "d44_masked_array": Refused(r"names numpy\.ma\..* masked arrays must be stored as \.filled\(0\)"),
    "d47_audio_transposed": told(),
    "d48_norm_padding_with_lengths": told(
        *(
            rf"split '{split}', audio: {count} of {count} rows have frames other than zero beyond their length .*, "
            "left out because 'audio_lengths' decides"
            for split, count in (("train", 24), ("valid", 8), ("test", 8))
        )
    ),
    "d49_extra_split_train_mix": told("train_mix, config left out; only train, valid, test are imported"),
    "d50_unlabelled_zero": Refused(r"split 'train', row 3: label -100 is outside \[-3, 3\]"),
    "d51_set_and_bytes_keys": told("its keys are bytes, as Python 2 writes them; read as text"),
    "d52_labels_annotations_only": Refused(
        "split 'train': key 'regression_labels' is missing; found .*classification_labels; "
        "--task classification takes the classes"
    ),
    "d54_sims_chinese_cut": told(counts=(32, 16, 16)),
    "d55_big_float64_memory": told(counts=(9, 2, 2)),
    "d56_nan_in_padding": told(),
    "d59_empty_file": Refused("is empty: a download that never began; fetch it again"),
    "d60_truncated": Refused(r"not a whole pickle \(it ends too early\); fetch or write it again"),
    "d61_lengths_none": Refused(
        "split 'train', audio_lengths, row 4: is None or NaN, though it has frames; give 0 for none"
    ),
    "d63_split_is_none": Refused("split 'test' holds None; found train, valid, test"),
    "d64_audio_key_none": told(r"audio is absent \(all zero, or not there\) and will not be used", missing=("audio",)),
    "d65_no_audio_key": told(r"audio is absent \(all zero, or not there\) and will not be used", missing=("audio",)),
    "d67_row_empty_list": told("split 'train', vision: 1 of 24 utterances have no frames"),
    "d68_row_empty_2d": told("split 'train', vision: 1 of 24 utterances have no frames"),
}
OPTIONS = {"d11": ["--dataset", "sims"], "d54": ["--dataset", "sims"]}
SIZES = {"d55": ["9"]}
"""A smaller one than the script's own."""


@pytest.fixture(scope="session")
def cases(shared: Path) -> Path:
    return shared / "cases"


def make(case: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a script writes."""
    monkeypatch.setattr(sys, "argv", [str(case), str(out), *SIZES.get(case.stem[:3], [])])
    runpy.run_path(str(case))
    return out


def test_every_script_has_its_outcome(cases: Path) -> None:
    elsewhere = {"e01_left_padding_effect", "h01_hf_cache_offline"}
    assert {path.stem for path in cases.glob("*.py")} == {*IMPORTS, *SPACES, *elsewhere}


@pytest.mark.parametrize("case", IMPORTS)
def test_import(case: str, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, right = make(cases / f"{case}.py", tmp_path / "case.pkl", monkeypatch), IMPORTS[case]
    result = deepmlf("data", "import", path, tmp_path / "out", *OPTIONS.get(case[:3], []), "--json")
    told = f"{tmp_path / 'out'}: "  # the result in words, which goes there beside JSON
    lines = [line for line in result.stderr.splitlines() if not line.startswith(told)]
    if isinstance(right, Refused):
        expected = (*right.lines_before, right.line)
        assert (result.returncode, len(lines)) == (2, len(expected)), result.stderr
        assert not (tmp_path / "out").exists()
    else:
        expected = right.lines
        assert result.returncode == 0, result.stderr
        assert len(lines) == len(expected), result.stderr
        found = json.loads(result.stdout.splitlines()[-1])
        assert found["splits"] == dict(zip(("train", "valid", "test"), right.counts, strict=True))
        assert found["missing"] == list(right.missing)
        Dataset.open(tmp_path / "out").require_labels("train", "valid", "test")
    for line, pattern in zip(lines, expected, strict=True):
        assert line.startswith("deepmlf: ")
        assert re.search(pattern, line), line


SAME_AS_CLEAN = ["d01", "d02", "d17b", "d24", "d25", "d27", "d48", "d49", "d51", "d56"]
"""Scripts that write what d00 writes in another form."""


@pytest.mark.parametrize("case", SAME_AS_CLEAN)
def test_the_same_utterances_come_out(case: str, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = []
    for name in ("d00", case):
        path = make(next(cases.glob(f"{name}_*.py")), tmp_path / f"{name}.pkl", monkeypatch)
        assert deepmlf("data", "import", path, tmp_path / name).returncode == 0
        prints.append(Dataset.open(tmp_path / name).info.fingerprint)
    assert prints[0] == prints[1]


def imported(case: str, cases: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    path = make(next(cases.glob(f"{case}_*.py")), folder / f"{case}.pkl", monkeypatch)
    assert deepmlf("data", "import", path, folder / case, *OPTIONS.get(case, [])).returncode == 0
    return Dataset.open(folder / case)


def test_texts_and_ids_are_what_they_stand_for(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert imported("d08", cases, tmp_path, monkeypatch).split("train").ids[:2] == ["v0$_$0.0$_$3.4", "v1$_$0.0$_$3.4"]
    assert imported("d09", cases, tmp_path, monkeypatch).split("train").texts[1:4] == ["this is a number 1", "", ""]
    assert imported("d10", cases, tmp_path, monkeypatch).split("train").texts[3] == "this is a number 3"
    strange = imported("d38", cases, tmp_path, monkeypatch).split("train").texts[:5]
    assert strange == ["", "   ", "Hey!", "ok \U0001f600\r\n", "a\x00b"]


def test_frames_are_what_they_stand_for(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not imported("d04", cases, tmp_path, monkeypatch).split("train").vision(5)[1].any()
    assert len(imported("d15", cases, tmp_path, monkeypatch).split("train").audio(0)) == 0
    assert len(imported("d67", cases, tmp_path, monkeypatch).split("train").vision(3)) == 0
    assert len(imported("d68", cases, tmp_path, monkeypatch).split("train").vision(3)) == 0
    assert imported("d64", cases, tmp_path, monkeypatch).info.audio_dim == 1
    big = imported("d26", cases, tmp_path, monkeypatch).split("valid")
    assert np.isfinite(big.audio(0)).all()
    assert np.abs(big.vision(0)).max() < 10


def test_data_info_shows_what_cannot_be_known(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transposed matrix, texts that are cut, and Chinese, which has no blanks between words."""
    imported("d47", cases, tmp_path, monkeypatch)
    shown = deepmlf("data", "info", tmp_path / "d47", "--lm", "tiny-random").stdout
    assert "audio_dim: 12\n" in shown
    assert "audio_frames: 5 to 5" in shown
    imported("d40", cases, tmp_path, monkeypatch)
    shown = deepmlf("data", "info", tmp_path / "d40", "--lm", "tiny-random").stdout
    assert "tokens: 18 to 500000, median 19; 1 of 24 texts are cut at 50" in shown
    imported("d54", cases, tmp_path, monkeypatch)
    shown = deepmlf("data", "info", tmp_path / "d54", "--lm", "tiny-random").stdout
    assert re.search(r"words: 1\d to [23]\d", shown)  # one for each character
    assert "of 32 texts are cut at 39" in shown  # the limit of the space `sims`


def test_padding_makes_no_difference_to_training(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The imported data is the same to the bit, and so is all that is trained on it."""
    make(cases / "e01_left_padding_effect.py", tmp_path, monkeypatch)
    prints = []
    for side in ("right", "left"):
        result = deepmlf("data", "import", tmp_path / f"{side}.pkl", tmp_path / side)
        assert ("begin with frames of zeros" in result.stderr) == (side == "left")
        prints.append(Dataset.open(tmp_path / side).info.fingerprint)
    assert prints[0] == prints[1]


SPACES = {
    "s01_space_dynamic_choices": r"model.num_fusion_tokens: is drawn from .* and from .*, but Optuna has one kind",
    "s02_space_four_points": "",
    "s03_space_nan": "",
    "s04_reason_with_brackets": "",
}
"""Why a search of a space is refused before it begins; empty if it is not."""


@pytest.mark.parametrize("case", SPACES)
def test_space(case: str, cases: Path, tmp_path: Path, small_data: Path) -> None:
    asked = SearchSettings(
        data=str(small_data), lm="tiny-random", space=str(cases / f"{case}.py"), trials=3, epochs=2, concurrent=1,
        storage=str(tmp_path), name="search",
    )  # fmt: skip
    if SPACES[case]:
        with pytest.raises(SearchError, match=SPACES[case]):
            plan_search(asked)
    else:
        assert plan_search(asked).settings.trials == 3


def test_a_trial_that_diverges_says_so(cases: Path, tmp_path: Path, small_data: Path) -> None:
    """Of the space s03; a search tells it as the trial's reason."""
    settings = load_space(str(cases / "s03_space_nan.py")).base | {
        "model.language_model": "tiny-random",
        "training.lr_fusion": 1e30,
        "training.lr_av": 1e30,
        "training.epochs": 2,
    }
    pairs = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    result = deepmlf("train", small_data, "--out", tmp_path / "trial", *pairs)
    assert result.returncode == 2
    assert re.search(r"^deepmlf: .*(became|is) (nan|inf|not finite)", result.stderr, re.M | re.I), result.stderr
