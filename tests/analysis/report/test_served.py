"""`deepmlf watch`: the report over HTTP, renewed as the experiment grows, for nobody who should not see it."""

import gzip
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks.parts.served import one_more
from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.addresses import is_loopback
from deepmlf.analysis.report.live import LivePage
from deepmlf.analysis.report.served import ReportServer
from deepmlf.errors import SearchError
from deepmlf.training.reports import read_reports
from deepmlf.tune.experiment.layout import METRICS, trial_folder
from tests.command import deepmlf

RUNNING = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search under way, whose last trial runs."""
    return make_experiment(tmp_path_factory.mktemp("watched"), RUNNING + 1, epochs=6, scheduler="none", running=1)


@pytest.fixture
def experiment(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / made.name)


@pytest.fixture(scope="module")
def page(made: Path) -> LivePage:
    """The page of an experiment that does not grow."""
    return LivePage(made)


def grow(experiment: Path) -> None:
    """One more epoch of the trial that runs."""
    folder = trial_folder(experiment, RUNNING)
    report = one_more(read_reports(folder)[-1])
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps(report.metrics) + "\n")


def ask(
    server: ReportServer, path: str = "/", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    port = urlsplit(server.url).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_the_page_is_made_anew_only_when_something_has_changed(experiment: Path) -> None:
    page = LivePage(experiment)
    first = page.report
    assert b"3 of 6" in first.html
    assert not page.refresh()
    assert page.report is first
    grow(experiment)
    assert page.refresh()
    assert page.report.version != first.version
    assert page.report.html.count(b"4 of 6") > first.html.count(b"4 of 6")
    assert gzip.decompress(page.report.gzipped) == page.report.html


def test_a_look_that_fails_leaves_the_last_page_and_is_told(experiment: Path) -> None:
    page, manifest = LivePage(experiment), experiment / "search.json"
    first = page.report
    kept = manifest.read_text()
    manifest.write_text("{")
    assert not page.refresh()
    assert page.report is first
    with ReportServer(page) as server:
        state = json.loads(ask(server, "/version")[2])
        assert state["version"] == first.version
        assert "search.json" in state["fault"]
    manifest.write_text(kept)
    page.refresh()
    assert page.fault is None


def test_on_loopback_the_page_is_served_to_this_machine(page: LivePage) -> None:
    with ReportServer(page) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url)
        status, headers, body = ask(server)
        assert status == 200
        assert body == page.report.html
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Python" not in headers["Server"]
        status, headers, body = ask(server, Accept_Encoding="gzip, br")
        assert (headers["Content-Encoding"], gzip.decompress(body)) == ("gzip", page.report.html)
        assert ask(server, "/", "HEAD")[::2] == (200, b"")
        assert json.loads(ask(server, "/version")[2]) == {"version": page.report.version, "fault": None}
        assert ask(server, "/search.json")[0] == 404
        assert ask(server, "/../search.json")[0] == 404
        assert ask(server, "/", "POST")[0] == 501


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:6007", "LOCALHOST"])
def test_names_of_this_machine_are_answered(page: LivePage, host: str) -> None:
    with ReportServer(page) as server:
        assert ask(server, Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["attacker.example", "127.0.0.1.attacker.example:80", "localhost@attacker.example", "", "["]
)
def test_a_name_that_somebody_else_has_bound_to_this_machine_is_refused(page: LivePage, host: str) -> None:
    with ReportServer(page) as server:
        for path in ("/", "/version"):
            status, _, body = ask(server, path, Host=host)
            assert status == 403
            assert body == b"ask by the address that `deepmlf watch` has shown\n"


def test_elsewhere_a_token_is_demanded(page: LivePage) -> None:
    with ReportServer(page, host="0.0.0.0") as server:
        made = re.fullmatch(rf"http://{re.escape(socket.gethostname())}:\d+/\?token=([\w-]{{32}})", server.url)
        assert made is not None
        for path in ("/", "/version", "/favicon.ico", "/?token=", "/?token=wrong", "/?token=%C3%A9"):
            status, _, body = ask(server, path, Host="any.name")
            assert status == 401
            assert b"its token included" in body
        assert ask(server, f"/?token={made[1]}", Host="any.name")[0] == 200
        assert ask(server, f"/version?token={made[1]}")[0] == 200
    with ReportServer(page, host="0.0.0.0") as another:
        assert another.token != made[1]


def test_a_token_of_ones_own_holds_on_loopback_too(page: LivePage) -> None:
    with ReportServer(page, token="a b&c") as server:
        assert server.url.endswith("/?token=a%20b%26c")
        assert ask(server)[0] == 401
        assert ask(server, "/?token=a%20b%26c")[0] == 200


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.8.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False),
     ("node3", False)],
)  # fmt: skip
def test_what_only_this_machine_reaches(host: str, here: bool) -> None:
    assert is_loopback(host) == here


def test_a_port_in_use_is_one_line_and_what_to_do(experiment: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = deepmlf("watch", experiment, "--port", str(port))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"deepmlf: port {port} is in use; choose another by --port, or --port 0 for a free one\n"
    unknown = deepmlf("watch", experiment, "--host", "203.0.113.1", "--port", "0")
    assert unknown.stderr.startswith("deepmlf: --host 203.0.113.1 --port 0: cannot be listened on (")
    assert unknown.stderr.count("\n") == 1


def test_what_is_no_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"not an experiment \(no search.json there\)"):
        LivePage(tmp_path)


@contextmanager
def watched(*arguments: str | Path) -> Iterator[str]:
    """The address of `deepmlf watch` in a process of its own."""
    command = [sys.executable, "-m", "deepmlf", "watch", *map(str, arguments), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.browser
def test_a_growing_experiment_is_seen_to_grow(chromium: Chrome, experiment: Path) -> None:
    def cells(_: Any = None) -> list[str]:
        return chromium.execute_script(
            "return [...document.querySelectorAll('tbody tr')].filter(row => row.cells[1]?.textContent == arguments[0])"
            ".map(row => row.cells[3]?.textContent)", str(RUNNING))  # fmt: skip

    with watched(experiment, "--every", "1") as url:
        chromium.get("about:blank")
        chromium.get_log("browser")
        chromium.get(url)
        assert "3 of 6" in cells()
        chromium.execute_script("document.querySelector('details').open = true; window.old = true")
        for epochs in ("4 of 6", "5 of 6"):
            grow(experiment)
            WebDriverWait(chromium, 60).until(lambda _, wanted=epochs: wanted in cells())
        assert chromium.execute_script("return document.querySelector('details').open")  # as the reader has left it
        assert chromium.execute_script("return document.getElementById('live').hidden")
        drawn = "return [...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))"
        WebDriverWait(chromium, 60).until(lambda _: chromium.execute_script(drawn))
        assert chromium.get_log("browser") == []
    WebDriverWait(chromium, 60).until(
        lambda _: (
            "does not answer any more" in chromium.execute_script("return document.getElementById('live').innerText")
        )
    )
