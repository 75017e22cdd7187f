"""Ids, texts and numbers as people write them, and every refusal by its text."""

from typing import Any

import numpy as np
import pytest

from deepmlf.data.values import entries, number_per_entry, numbers, read_ids, read_texts
from deepmlf.errors import DataError


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a$_$1", "a$_$1"),
        (b"caf\xc3\xa9", "caf\u00e9"),
        (np.bytes_(b"v0"), "v0"),
        (np.str_("v0"), "v0"),
        (7, "7"),
        (np.int64(7), "7"),
        (np.array("v0"), "v0"),
        (np.array(["v0"]), "v0"),
        (np.array([b"v0", b"0.0", b"3.4"]), "v0$_$0.0$_$3.4"),
        (["v0", 0.0, 3.4], "v0$_$0.0$_$3.4"),
        (("v0", [b"1"]), "v0$_$1"),
    ],
)
def test_an_id_can_be_typed(value: Any, name: str) -> None:
    found = read_ids("train", [value])
    assert found == [name]
    assert type(found[0]) is str


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None], "split 'train', id, row 1: must be an id, but is None"),
        ([float("nan")], "split 'train', id, row 0: must be an id, but is nan"),
        ([""], "split 'train', id, row 0: must be an id, but is empty"),
        ([[]], "split 'train', id, row 0: must be an id, but is empty"),
        ([["v0", None]], "split 'train', id, row 0: must be an id, but is None"),
        ([{"a": 1}], "split 'train', id, row 0: must be an id, but is a dict of 1"),
        ([b"\xff"], "split 'train', id, row 0: holds bytes that are not UTF-8"),
        (["a", "b", b"a"], r"split 'train': id 'a' occurs more than once \(rows 0 and 2\); put .* e.g. video\$_\$a"),
    ],
)
def test_an_id_that_is_none_is_refused(values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_ids("train", values)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("So GOOD", "So GOOD"),
        (np.str_("a"), "a"),
        (b"\xe6\x88\x91", "\u6211"),
        (b"\xef\xbb\xbfa", "a"),
        (bytearray(b"a"), "a"),
        (np.array("a", object), "a"),
        (np.array(["a"]), "a"),
        (["this", "is"], "this is"),
        (np.array([[b"sp"], [b"it"]]), "sp it"),
        (("a", np.str_("b"), ""), "a b"),
        ([], ""),
    ],
)
def test_a_text_is_what_was_said(value: Any, text: str) -> None:
    found = read_texts("train", [value], lambda message: None)
    assert found == [text]
    assert type(found[0]) is str


@pytest.mark.parametrize("value", [None, float("nan"), np.float32("nan"), np.array(None, object)])
def test_a_missing_text_is_empty_and_told(value: Any) -> None:
    told: list[str] = []
    assert read_texts("valid", ["a", value, " "], told.append) == ["a", "", " "]
    assert told == [
        "split 'valid': 1 of 3 texts are missing (None or NaN) and taken as empty (the first in row 1)",
        "split 'valid': 1 of 3 texts are empty (the first in row 2)",
    ]


def test_lists_of_words_are_told() -> None:
    told: list[str] = []
    read_texts("valid", ["a", ["b"], ["b", "c"], np.array(["d", "e"])], told.append)
    assert told == ["split 'valid': 2 of 4 texts are lists of words, joined by blanks (the first in row 2)"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("\u6211".encode("gbk"), r"holds bytes that are not UTF-8; decode them first, .*\.decode\('gb18030'\)"),
        ("good".encode("utf-16-le"), "holds bytes that are not UTF-8"),
        ("good".encode("utf-16"), "holds bytes that are not UTF-8"),
        ("caf\u00e9".encode("latin-1"), "holds bytes that are not UTF-8"),
        ("a\ud83d", r"holds half a character \('a\\ud83d'\); read it again in the encoding of its file"),
        (3, "must be text, but is 3"),
        (1.5, "must be text, but is 1.5"),
        ({"text": "a"}, "must be text, but is a dict of 1"),
        (["a", None], "must be text, but one of its words is None or NaN"),
        ([101, 2023], "must be text, but is 101"),
        (np.ones(3), "must be text, but is 1.0"),
    ],
)
def test_what_is_no_text_is_refused(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"split 'train', raw_text, row 1: {message}"):
        read_texts("train", ["a", value], lambda message: None)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("abc", "one str"),
        (None, "None"),
        ({0: "a"}, "a dict"),
        ({"a"}, "one set"),
        (5, "one int"),
        (np.array(5), "one nd"),
    ],
)
def test_a_key_holds_a_value_per_utterance(value: Any, kind: str) -> None:
    with pytest.raises(DataError, match=f"split 'train': 'id' must hold a value per utterance, but holds {kind}"):
        entries("train", "id", value)


def test_numbers_are_read_from_whatever_holds_them() -> None:
    nested = np.empty(2, object)
    nested[:] = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    np.testing.assert_array_equal(numbers(nested, ""), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(numbers([[1, None]], ""), [[1, np.nan]])
    np.testing.assert_array_equal(numbers(["1.5", b"2"], ""), [1.5, 2])
    assert numbers(np.ones(2, np.float16), "").dtype == np.float16


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["x"], "must hold numbers, but holds a list of 1"),
        ([[1, 2], [3]], "must hold numbers, but holds a list of 2"),
        ([10**400], "must hold numbers"),
        (np.ones(2, complex), "must hold real numbers, but holds complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "must hold real numbers, but holds datetime64"),
    ],
)
def test_what_is_no_number_is_refused(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"here: {message}"):
        numbers(value, "here")


def test_the_row_without_a_number_is_named() -> None:
    with pytest.raises(DataError, match="split 'train', labels, row 2: must hold numbers, but holds 'Positive'"):
        number_per_entry("train", "labels", [1, "2", "Positive"])
