import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import colors

import browser
import commands
from experiments import page, plots, report, results
from experiments.lab import style

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
    read = Page(html)
    assert not read.open
    assert not [tag for tag, _ in read.tags if tag in ("link", "iframe", "img")]
    assert not [attrs for _, attrs in read.tags if "src" in attrs or "onload" in attrs]
    links = {attrs["href"] for tag, attrs in read.tags if tag == "a"}
    assert links == set(FILES) - {"index.html"}
    inside = [value for tag, attrs in read.tags for name, value in attrs.items() if name.endswith("href")]
    assert all(value.startswith("#") or value in links for value in inside)
    assert html.count("<figure") == 2 * 3 and "<img" not in html
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in read.tags
    for text in (
        "<h1>A &amp; B</h1>", "2026-11-23T10:00:00+00:00", "0.10.1", "A processor", ">0123456789ab<",
        "python -m experiments.compare", "4/5 (1 diverged)", "&gt;1,000", "compilation excluded", "2 to 5",
        "then the query: which symbol was it?",
    ):  # fmt: skip
        assert text in html, text
    assert html.count("<tr>") == 12 + 3


def test_what_runs_say_is_escaped(tmp_path, run_dir):
    run_dir(tmp_path / "a", label="<b>gru</b></script>", solved=[100])
    html = report.write(tmp_path, command="<script>")["index.html"].read_text(encoding="utf-8")
    assert "<b>" not in html and "&lt;b&gt;gru" in html
    assert html.count("<script") == html.count("</script") == 2 and "&lt;script&gt;" in html


def test_the_page_is_pure(comparison, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seeds = results.load_seeds(comparison)
    one = page.Group("One figure", "How.", plots.threshold_panels(seeds), style.styles(seeds))
    before = sorted(tmp_path.rglob("*"))
    html = page.render("T", [one], seeds, {"jax": "1"}, "")
    assert "One figure" in html and "To repeat it" not in html
    assert sorted(tmp_path.rglob("*")) == before


def test_many_options_share_a_column():
    rows = pd.DataFrame(
        {
            "cell": ["gru", "rnn"],
            "rate": ["0.1", "0.2"],
            "scale": ["", "1"],
            "act": ["", "relu"],
            "solved": "1/1",
        }
    )
    assert page._narrow(rows, ["rate", "scale"]).equals(rows)
    narrow = page._narrow(rows, ["rate", "scale", "act", "gone"])
    assert narrow.columns.tolist() == ["cell", "options", "solved"]
    assert narrow["options"].tolist() == ["rate 0.1", "rate 0.2, scale 1, act relu"]


def test_every_colour_can_be_read_in_the_dark():
    colours = {look[0].lower() for look in style.known().values()} | {style.INK, style.MUTED, "#000000"}
    for colour in colours:
        assert page.contrast(page.shade(colour, "dark"), page.PAPER["dark"]) >= page.CONTRAST, colour
        assert page.shade(colour, "light") == colour


SCRIPT = """(window, document) => {
  const figure = document.querySelector("figure"), svg = figure.querySelector(":scope > svg");
  const { names, panels } = JSON.parse(document.getElementById("points").textContent);
  const says = () => figure.querySelector("output").textContent;
  const point = panels[0][0], box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
  const at = { clientX: box.left + point[0] * box.width / view.width,
               clientY: box.top + point[1] * box.height / view.height, bubbles: true };
  svg.dispatchEvent(new window.PointerEvent("pointerdown", at));
  const read = says(), button = figure.querySelector(`button[data-of="${point[2]}"]`);
  const marks = name => [...document.getElementsByClassName(name)];
  const shown = name => marks(name).filter(mark => mark.getClientRects().length);
  const before = shown(point[2]).length;
  button.click();
  const after = shown(point[2]).length;
  svg.dispatchEvent(new window.PointerEvent("pointermove", at));
  const other = says();
  button.click();
  const style = window.getComputedStyle;
  const letters = [...document.querySelectorAll("figure > svg text")];
  const boxes = letters.map(one => one.getBoundingClientRect());
  return {
    wanted: `${names[point[2]]}: ${point[3]}`, read, other, name: names[point[2]], before, after,
    again: shown(point[2]).length, across: document.documentElement.scrollWidth, width: window.innerWidth,
    scrolls: [...document.querySelectorAll(".scroll")].map(one => one.scrollWidth - one.clientWidth),
    small: Math.min(...boxes.map(box => Math.max(box.width, box.height))),
    ink: [...new Set(letters.map(one => style(one).fill))], paper: style(document.body).backgroundColor,
    wide: [...document.querySelectorAll("figure > svg")].map(one => one.getBoundingClientRect().right),
  };
}"""


def colour(text):
    return colors.to_hex([int(part) / 255 for part in re.findall(r"\d+", text)[:3]])


@pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width, dark", [(390, True), pytest.param(1200, False, marks=pytest.mark.slow)])
def test_in_a_browser_values_are_read_and_cells_hidden_at_any_width(tmp_path, run_dir, width, dark):
    for cell in ("gru", "lru"):
        run_dir(tmp_path / "runs" / cell, cell=cell, solved=[300, "nan", None])
    found = browser.see(report.write(tmp_path / "runs")["index.html"], SCRIPT, tmp_path, width, dark)
    assert found["errors"] == []
    assert found["read"] == found["wanted"]
    assert found["other"] and not found["other"].startswith(f"{found['name']}:")
    assert found["before"] == found["again"] > found["after"] == 0
    assert found["width"] == width >= found["across"] and max(found["wide"]) <= width
    assert (max(found["scrolls"]) > 0) == (width < 500)  # tables scroll, not the page
    assert found["small"] > 10  # pixels
    for ink in found["ink"]:
        assert page.contrast(colour(ink), colour(found["paper"])) >= page.CONTRAST
    assert page.contrast(colour(found["paper"]), "#ffffff") > 10 or not dark


COMMANDS = commands.SHARED


def command(*args):
    return COMMANDS.run("experiments.report", *args)


def test_runs_that_have_not_finished_are_named_and_damaged_ones_left_aside(tmp_path, run_dir):
    run_dir(tmp_path / "a", solved=[100])
    (run_dir(tmp_path / "b", cell="rnn", solved=[100]) / "summary.json").unlink()
    begun = tmp_path / "c"  # nothing but its configs
    begun.mkdir()
    for name in ("config.json", "resolved.json"):
        (begun / name).write_text("{}")
    page_of = lambda: report.write(tmp_path)["index.html"].read_text(encoding="utf-8")  # noqa: E731
    assert "2 runs have not finished: b, c.<" in page_of() and results.look(tmp_path).damaged == []
    (run_dir(tmp_path / "d", cell="lru") / "summary.json").write_text('{"run": ')
    (run_dir(tmp_path / "e", cell="lru") / "metrics.jsonl").unlink()
    found = results.look(tmp_path)
    for line, said in zip(
        found.damaged, ("d/summary.json is damaged", "e/metrics.jsonl is miss"), strict=True
    ):
        assert said in line
    assert [path.name for path in found.whole] == ["a", "b"] and "e/metrics.jsonl is missing" in page_of()
    for name in "fgh":
        (run_dir(tmp_path / name) / "summary.json").unlink()
    assert results.look(tmp_path).told()[-1] == "5 runs have not finished: b, c, f and 2 more"
    done = command(tmp_path, f"--out={tmp_path / 'out'}")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 3)
    (tmp_path / "a" / "summary.json").unlink()
    with pytest.raises(ValueError, match="no finished run"):
        report.write(tmp_path)


def test_command_writes_and_says_where(tmp_path, run_dir):
    run_dir(tmp_path / "runs" / "a", solved=[None])
    done = command(tmp_path / "runs", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert sorted(Path(line).name for line in done.stdout.splitlines() if "/out/" in line) == FILES
    assert "delayed_recall" in done.stdout and ">1,000" in done.stdout  # the table
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_the_page_says_what_was_run(tmp_path, run_dir):
    asked = {"task": {"name": "delayed_recall", "gap": 20}, "cell": {"name": "gru", "hidden_size": 64}}
    asked |= {"optim": {"learning_rate": 0.003, "learning_rates": [0.01]}}
    run = run_dir(tmp_path / "a", config=asked)
    (run / "resolved.json").write_text(json.dumps(asked | {"cell": {"name": "gru", "hidden_size": 43}}))
    html = report.write(tmp_path)["index.html"].read_text(encoding="utf-8")
    assert "(gap = 20)</p>" in html and "<dt>cell.hidden_size</dt><dd>43</dd>" in html
    assert "optim.learning_rates<" in html and "optim.learning_rate<" not in html


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_several_folders_and_runs_are_read_and_written_elsewhere(tmp_path, run_dir, monkeypatch):
    """Two sweeps: the options that were varied are columns; of two that differ in budget too."""
    for rate in (0.01, 0.1):
        config = {"optim": {"learning_rate": rate, "momentum": 0.9}, "train": {"steps": 1000}}
        for cell, solved in (("gru", 300), ("lstm", 500 if rate < 0.1 else None)):
            run_dir(tmp_path / f"{rate}" / cell, cell=cell, solved=[solved, 400], config=config)
    before = contents(tmp_path)
    done = command(tmp_path / "0.01", tmp_path / "0.1", "--y=solved_step", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "learning" in done.stdout and "momentum" not in done.stdout
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {*FILES, "rates.csv", "solved_step_by_learning_rate.png"}
    html = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert '<th scope="col">learning_rate</th>' in html and ">gru (learning_rate=0.01)<" in html
    assert "* chosen on validation" in html and "* chosen on validation" in done.stdout
    assert re.search(r"Learning rates:\s+0.01, 0.1", html) and "Protocol of delayed_recall" in html
    assert len(re.findall(r"<td>0\.99\d* \(2/2 in 300\) \*</td>", html)) == 3  # at both rates, and tuned
    monkeypatch.chdir(tmp_path)
    refused = [
        ([tmp_path / "0.1"], ["nosuch"], "--x=nosuch is no number in which these runs differ"),
        ([tmp_path / "0.01", tmp_path / "0.1"], ["learning_rat"], "did you mean 'learning_rate'"),
    ]
    for dirs, xs, line in refused:
        with pytest.raises(ValueError, match=line):
            report.write(dirs, tmp_path / "out", xs=xs)
    with pytest.raises(ValueError, match="--y=accuracy is no metric of a seed"):
        report.write(refused[1][0], tmp_path / "out", xs=["learning_rate"], y="accuracy")
    for place in (tmp_path / "0.1" / "gru", tmp_path / "0.1" / "gru" / "below"):
        with pytest.raises(ValueError, match="is a run's folder, which is only read"):
            report.write(tmp_path / "0.1", place)
    assert {
        path: content for path, content in contents(tmp_path).items() if "out" not in path.parts
    } == before


@pytest.mark.parametrize("args", [["nowhere"], [], ["tests/experiments"], ["nowhere", "tests"]])
def test_command_refuses_in_one_line(args):
    done = command(*args)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert not done.stdout
