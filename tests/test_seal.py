"""Documents and files that tell when they are not as they were written."""

import json
import math
from pathlib import Path

import pytest

from deepmlf.seal import BrokenSealError, file_sum, sealed, unsealed

DOCUMENT = {"name": "é\ud800", "1": 0.1, "deep": {"list": [1, 2.5e-7, None, True], "empty": {}}, "far": 1e300}


def read(text: bytes | str) -> dict:
    return unsealed(json.loads(text))


@pytest.mark.parametrize("indent", [None, 2])
def test_a_document_comes_back_as_it_was(indent: int | None) -> None:
    assert read(json.dumps(sealed(DOCUMENT), indent=indent)) == DOCUMENT


def test_so_do_tuples_numbers_as_names_and_what_is_not_a_number() -> None:
    found = read(json.dumps(sealed({"loss": math.nan, 3: (1, 2), "inf": -math.inf})))
    assert math.isnan(found["loss"])
    assert found["3"] == [1, 2]
    assert found["inf"] == -math.inf


def test_a_document_without_a_seal_is_taken_as_it_is() -> None:
    assert unsealed(DOCUMENT) == DOCUMENT
    assert unsealed([1]) == [1]


def test_no_bit_that_flips_makes_another_document() -> None:
    """Each bit of each byte; whatever still reads as JSON is the same, or refused."""
    written = json.dumps(sealed({"epoch": 3, "valid/MAE": 0.8125, "state": "fusion"})).encode()
    refused = 0
    for at in range(len(written)):
        for bit in range(8):
            flipped = bytearray(written)
            flipped[at] ^= 1 << bit
            try:
                found = read(bytes(flipped))
            except ValueError:  # JSON's own, text that is no UTF-8, or a broken seal
                refused += 1
            else:
                assert found == {"epoch": 3, "valid/MAE": 0.8125, "state": "fusion"}, bytes(flipped)
    assert refused > 7 * len(written)


def test_a_spoilt_seal_is_not_taken_for_none() -> None:
    spoilt = sealed({"epoch": 1})
    spoilt["checksun"] = spoilt.pop("checksum")
    with pytest.raises(BrokenSealError, match=r"^its checksum is of something else$"):
        unsealed(spoilt)


def test_a_files_sum_tells_of_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    content = bytes(range(256)) * 40_000  # several blocks
    path.write_bytes(content)
    written = file_sum(path)
    assert written == file_sum(path)
    for other in (content[:-1], content + b"\0", content[:5_000_000] + b"\1" + content[5_000_001:]):
        path.write_bytes(other)
        assert file_sum(path) != written
