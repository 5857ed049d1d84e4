from html.parser import HTMLParser
from pathlib import Path

import pytest

import commands
from experiments import plots, report, results

FILES = (
    "curves.csv curves.parquet index.html learning_curves.png seeds.csv seeds.parquet summary.csv "
    "time_to_threshold.png"
).split()


class Page(HTMLParser):
    """Tags with their attributes, and whether every one is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_write_makes_every_file_and_can_be_repeated_in_place(comparison):
    paths = report.write(comparison, title="A & B")
    first = {name: path.read_bytes() for name, path in paths.items()}
    assert sorted(paths) == FILES
    for name in ("learning_curves.png", "time_to_threshold.png"):
        assert first[name].startswith(b"\x89PNG")
    assert_the_page_needs_nothing_else_and_says_what_ran(first["index.html"].decode())
    assert {
        name: path.read_bytes() for name, path in report.write(comparison, title="A & B").items()
    } == first


def assert_the_page_needs_nothing_else_and_says_what_ran(html):
    page = Page(html)
    assert not page.open
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 2
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    for text in (
        "<h1>A &amp; B</h1>", "2026-11-23T10:00:00+00:00", "0.10.1", "A processor", ">0123456789ab<",
        "python -m experiments.compare", "4/5 (1 diverged)", "&gt;1,000", "compilation excluded", "2 to 5",
    ):  # fmt: skip
        assert text in html, text
    assert html.count("<tr>") == 12 + 3


def test_what_runs_say_is_escaped(tmp_path, run_dir):
    run_dir(tmp_path / "a", label="<b>gru</b>", solved=[100])
    html = report.write(tmp_path, command="<script>")["index.html"].read_text(encoding="utf-8")
    assert "<b>" not in html and "&lt;b&gt;gru" in html
    assert "<script" not in html and "&lt;script&gt;" in html


def test_page_is_pure(comparison, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seeds = results.load_seeds(comparison)
    figures = {"One figure": plots.time_to_threshold(seeds)}
    before = sorted(tmp_path.rglob("*"))
    html = report.page("T", figures, results.aggregate(seeds), {"jax": "1"}, "")
    assert "One figure" in html and "To repeat it" not in html
    assert sorted(tmp_path.rglob("*")) == before


def test_killed_runs_are_named(tmp_path, run_dir):
    run_dir(tmp_path / "a", solved=[100])
    (run_dir(tmp_path / "b", cell="rnn", solved=[100]) / "summary.json").unlink()
    assert "no summary yet: b<" in report.write(tmp_path)["index.html"].read_text(encoding="utf-8")
    (tmp_path / "a" / "summary.json").unlink()
    with pytest.raises(ValueError, match="no finished run"):
        report.write(tmp_path)


COMMANDS = commands.SHARED


def command(*args):
    return COMMANDS.run("experiments.report", *args)


def test_command_writes_and_says_where(comparison, tmp_path):
    done = command(comparison, f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert sorted(Path(line).name for line in done.stdout.splitlines()) == FILES
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


@pytest.mark.parametrize("args", [["nowhere"], [], ["tests/experiments"], ["nowhere", "tests"]])
def test_command_refuses_in_one_line(args):
    done = command(*args)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert not done.stdout
