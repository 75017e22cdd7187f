"""The page of one prediction: the right numbers, nothing from the network, readable on a phone."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from deepmlf.analysis.report.explain_page import explain_page
from deepmlf.inference.explain import Explanation


class Page(HTMLParser):
    """What a page shows and what it asks for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self.scripts = self.plots = 0
        self.figures: list[dict[str, str | None]] = []
        self.text = ""
        self._inside: list[str] = []
        self._table = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.asked += [f"{tag} {name}" for name in ("src", "href", "srcset", "data", "poster") if name in named]
        self.scripts += tag == "script"
        self.plots += named.get("class") == "plotly-graph-div"
        if tag == "figure":
            self.figures.append(named)
        if tag == "table":
            self._table = named.get("id") or f"attention {len(self.tables)}"
            self.tables[self._table] = []
        if tag == "tr":
            self.tables[self._table].append([])
        if tag in ("td", "th"):
            self.tables[self._table][-1].append("")
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._inside:
            self.asked += re.findall(r"@import|url\(", data)
        elif "script" not in self._inside:
            self.text += data
            if self._inside and self._inside[-1] in ("td", "th"):
                self.tables[self._table][-1][-1] += data


def test_the_page_has_the_numbers(explanation: Explanation) -> None:
    page = Page(explain_page(explanation))
    heads = dict(page.tables["heads"][1:])
    assert heads == {
        "Final prediction": f"{explanation.predictions['task']:+.4f}",
        "Words alone": f"{explanation.predictions['text']:+.4f}",
        "Audio and vision alone": f"{explanation.predictions['av']:+.4f}",
        "Fusion tokens (mean)": f"{explanation.predictions['fusion']:+.4f}",
        "Label": f"{explanation.label:+.4f}",
    }
    assert explanation.text in page.text
    [attention] = [rows for name, rows in page.tables.items() if name.startswith("attention")]
    assert len(attention) == 4
    for row in attention[1:]:
        assert sum(map(float, row[1:])) == pytest.approx(100, abs=0.005 * len(row))
    [block] = explanation.blocks
    assert page.tables["gate-table"][1] == ["0", f"{block.attention_gate:.4f}", f"{block.ffn_gate:.4f}"]
    assert page.plots == len(page.figures) == 4
    assert all(figure["aria-label"] for figure in page.figures)


def test_the_page_says_what_becomes_of_it_without_each_part(explanation: Explanation) -> None:
    page, without = Page(explain_page(explanation)), explanation.without
    nothing, *parts = page.tables["parts"][1:]
    assert nothing[:2] == ["nothing", f"{explanation.predictions['task']:+.4f}"]
    assert [row[0] for row in parts] == ["audio", "vision", "audio and vision", "all words"]
    for row, part in zip(parts, without.parts, strict=True):
        assert row[1:3] == [f"{without.said + part.change:+.4f}", f"{part.change:+.4f}"]
        assert row[3:] == [f"{part.usual:.4f}", f"{100 * part.rank:.0f}%"]
    words = page.tables["words-table"][1:]
    assert [row[0].split(" ", 1)[1] for row in words] == explanation.text.split()


def test_axes_of_frames_and_layers_have_whole_numbers(explanation: Explanation) -> None:
    assert re.search(r'"audiovisual frame"\},"tick0":1,"dtick":1,"tickformat":"d"', explain_page(explanation))


def test_the_page_asks_for_nothing_and_escapes_what_it_shows(explanation: Explanation) -> None:
    plain = Page(explain_page(explanation))
    hostile = "</script><script>alert(1)</script><img src=x>"
    page = Page(explain_page(replace(explanation, text=hostile, id=hostile, model=hostile)))
    assert page.asked == plain.asked == []
    assert page.scripts == plain.scripts
    assert hostile in page.text


def test_an_utterance_without_label_or_frames_has_a_page(explanation: Explanation) -> None:
    bare = replace(explanation, label=None, classes={"task": "neutral"}, has_frames=False, text="")
    page = Page(explain_page(bare))
    assert "There is no label." in page.text
    assert "neither audio nor vision" in page.text
    assert set(page.tables) == {"heads", "parts", "words-table", "gate-table"}
