import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.text import Text

import cells
from experiments import plots, results
from experiments.lab import panels, style


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def overlaps(a, b):
    """Boxes that share pixels, or stand side by side with less than 5 pixels between them."""
    return a.x0 < b.x1 + 5 and b.x0 < a.x1 + 5 and a.y0 < b.y1 - 1 and b.y0 < a.y1 - 1


def written(figure):
    """(text, box in pixels) of everything written in the figure, after it was laid out."""
    figure.draw_without_rendering()
    found = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    ticks = {label for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for label in _outside(axis)}
    return [(text.get_text(), text.get_window_extent()) for text in found if text not in ticks]


def _outside(axis):
    """The labels of ticks beyond the limits, which are not drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [tick.label1 for tick in ticks if not low <= tick.get_loc() <= high]


def check_text(figure):
    boxes = written(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for i, (name, box) in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, name
        clash = [other for other, b in boxes[:i] if overlaps(box, b)]
        assert not clash, (name, clash)


@pytest.mark.parametrize("unit", plots.UNITS)
@pytest.mark.parametrize("tasks", [1, 3])
def test_nothing_written_is_clipped_or_overlaps(comparison, unit, tasks):
    curves, seeds = results.load_curves(comparison), results.load_seeds(comparison)
    keep = sorted(set(seeds["task"]))[:tasks]
    check_text(plots.learning_curves(curves[curves["task"].isin(keep)], unit))
    check_text(plots.time_to_threshold(seeds[seeds["task"].isin(keep)], unit))


def test_many_long_labels_fit(tmp_path, run_dir):
    for cell in ("gru", "sru", "qrnn"):
        for length in (100, 1000, 10000):
            label = f"{cell}, gap of {length} steps, no feedback"
            run = {"cell": cell, "label": label, "solved": [length, None], "budget": 20000}
            run_dir(tmp_path / f"{cell}{length}", **run)
    curves = plots.learning_curves(results.load_curves(tmp_path))
    times = plots.time_to_threshold(results.load_seeds(tmp_path))
    for figure, least in ((curves, 0.2), (times, 0.5)):
        check_text(figure)
        panel = figure.axes[0].get_position()  # names leave room for the data
        assert panel.width > least and panel.height * figure.get_figheight() > 1
    wide = results.load_curves(tmp_path).assign(label=lambda rows: rows["label"] + 12 * " and another word")
    check_text(plots.learning_curves(wide))


def test_many_labels_have_small_panels_with_the_others_in_grey(tmp_path, run_dir):
    names = ["attention", "gru", "lstm", "mamba2", "mlstm", "rnn", "sru", "tcn"]
    for name in names:
        run_dir(tmp_path / name, cell=name, solved=[200, 300])
    for task in ("digits", "adding"):  # few: one panel
        run_dir(tmp_path / task, task=task, cell="gru", solved=[200])
    figure = plots.learning_curves(results.load_curves(tmp_path))
    small = [ax for ax in figure.axes if ax.get_title(loc="left") in names]
    assert len(small) == len(names) and len(figure.axes) == len(names) + 2
    for ax, name in zip(small, names, strict=True):
        grey = [line for line in ax.get_lines() if line.get_color() == panels.GREY]
        assert set(lines(ax)) == {name} == {ax.get_title(loc="left")} and len(grey) == len(names) - 1
        assert np.allclose(ax.get_ylim(), small[0].get_ylim())
    assert {"threshold", "baseline", "others"} <= set(legend(figure))
    check_text(figure)


def test_a_task_without_threshold_and_baseline(tmp_path, run_dir):
    curves = {0: {100: 0.3}, 1: {100: 0.3, 200: 0.4}}
    run_dir(tmp_path / "a", curves=curves, solved=[None, None], threshold=None, baseline=None)
    ax = plots.learning_curves(results.load_curves(tmp_path)).axes[0]
    assert not texts(ax) and len(lines(ax)["gru"].get_xdata()) == 2
    plots.time_to_threshold(results.load_seeds(tmp_path))


def test_a_panel_per_task_and_a_line_per_label(comparison):
    figure = plots.learning_curves(results.load_curves(comparison))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["adding", "delayed recall", "digits"]
    assert set(lines(figure.axes[1])) == {"gru", "lstm", "min_gru", "rnn", "sru"}
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "log", "log"]
    assert all("lower is better" in ax.get_ylabel() for ax in figure.axes)
    assert "error, 1 − accuracy" in figure.axes[1].get_ylabel()  # it saturates
    assert legend(figure) == ["gru", "lstm", "min_gru", "rnn", "sru", "diverged"]
    assert "threshold\n0.01" in texts(figure.axes[1]) and "baseline\n0.875" in texts(figure.axes[1])


def curve(tmp_path, run_dir, curves, solved, **kwargs):
    run_dir(tmp_path / "a", curves=curves, solved=solved, **kwargs)
    ax = plots.learning_curves(results.load_curves(tmp_path)).axes[0]
    return ax, lines(ax)["gru"]


def test_a_solved_seed_keeps_its_last_value(tmp_path, run_dir):
    run = {"threshold": 0.7}
    early, late = {100: 0.8}, {100: 0.2, 200: 0.4, 300: 0.6}
    _, line = curve(tmp_path, run_dir, {0: early, 1: late, 2: late}, [100, None, None], **run)
    assert line.get_xdata().tolist() == [100, 200, 300]
    assert np.allclose(line.get_ydata(), [0.2, 0.4, 0.6])
    early_twice = {0: early, 1: early, 2: late}
    ax, line = curve(tmp_path / "b", run_dir, early_twice, [100, 100, None], **run)
    assert np.allclose(line.get_ydata(), [0.8, 0.8, 0.8])  # without carrying on: 0.8, 0.4, 0.6
    assert ax.get_yscale() == "linear" and "higher is better" in ax.get_ylabel()


def test_an_accuracy_that_saturates_is_drawn_as_its_error(tmp_path, run_dir):
    curves = {0: {100: 0.5, 200: 0.9, 300: 0.98, 400: 1.0}}
    ax, line = curve(tmp_path, run_dir, curves, [400])
    assert ax.get_yscale() == "log"
    assert np.allclose(line.get_ydata(), [0.5, 0.1, 0.02, 0.005])  # none: half of the threshold's
    ticks = dict(zip(ax.get_yticks(), (label.get_text() for label in ax.get_yticklabels()), strict=True))
    assert next(name for at, name in ticks.items() if np.isclose(at, 0.005)) == "0"
    assert {float(name) for name in ticks.values() if name != "0"} == {
        at for at, name in ticks.items() if name != "0"
    }


def test_no_error_is_drawn_below_the_threshold(tmp_path, run_dir):
    """Which may be closer to it than any error that was found."""
    ax, line = curve(tmp_path, run_dir, {0: {100: 0.5, 200: 1.0}}, [200], threshold=0.999)
    assert np.allclose(line.get_ydata(), [0.5, 0.0005]) and "threshold\n0.001" in texts(ax)


def test_a_seed_that_solved_by_a_low_value_keeps_it_too(tmp_path, run_dir):
    early, late = {100: 0.001}, {100: 0.2, 200: 0.1}
    _, line = curve(tmp_path, run_dir, {0: early, 1: early, 2: late}, [100, 100, None], task="adding")
    assert np.allclose(line.get_ydata(), [0.001, 0.001])
    cut = {100: 0.05}
    _, line = curve(tmp_path / "b", run_dir, {0: cut, 1: cut, 2: late}, [None] * 3, task="adding")
    assert np.allclose(line.get_ydata(), [0.05, 0.1])


def test_a_seed_that_was_cut_off_does_not_keep_its_last_value(tmp_path, run_dir):
    cut, late = {100: 0.8}, {100: 0.2, 200: 0.4}
    _, line = curve(tmp_path, run_dir, {0: cut, 1: cut, 2: late}, [None] * 3)
    assert np.allclose(line.get_ydata(), [0.8, 0.4])


def test_the_band_is_the_middle_half_or_all_of_few_seeds(tmp_path, run_dir):
    def band(name, values):
        curves = {i: {100: value, 200: value} for i, value in enumerate(values)}
        ax, _ = curve(tmp_path / name, run_dir, curves, [None] * len(values))
        heights = ax.collections[0].get_paths()[0].vertices[:, 1]
        return heights.min(), heights.max()

    assert np.allclose(band("few", [0.1, 0.2, 0.6]), (0.1, 0.6))
    assert np.allclose(band("many", [0.1, 0.2, 0.3, 0.4, 0.9]), (0.2, 0.4))


def test_a_diverged_seed_is_marked_where_it_diverged_at_its_last_value(tmp_path, run_dir):
    gone = {100: 0.3, 200: 0.5, 300: math.nan}
    fine = {100: 0.3, 200: 0.3, 300: 0.3}
    ax, line = curve(tmp_path, run_dir, {0: gone, 1: fine}, ["nan", None])
    (cross,) = [mark for mark in ax.get_lines() if mark.get_marker() == "X"]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (300, 0.5)
    assert np.allclose(line.get_ydata(), [0.3, 0.4, 0.3])


def test_a_seed_without_any_value_is_marked_on_the_axis(tmp_path, run_dir):
    ax, line = curve(tmp_path, run_dir, {0: {1000: math.nan, 2000: math.inf}}, ["nan"])
    (cross,) = [mark for mark in ax.get_lines() if mark.get_marker() == "X"]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (600, 0)  # as in `time_to_threshold`
    assert cross.get_transform() == ax.get_xaxis_transform()


def test_seeds_evaluated_at_other_steps_do_not_make_the_median_jump(tmp_path, run_dir):
    run_dir(tmp_path / "a", curves={0: {100: 0.2, 200: 0.4}}, solved=[None])
    run_dir(tmp_path / "b", curves={0: {100: 0.0, 150: 0.0, 200: 0.0}}, solved=[None])
    ax = plots.learning_curves(results.load_curves(tmp_path)).axes[0]
    assert np.allclose(lines(ax)["gru"].get_ydata(), [0.1, 0.15, 0.2])


def test_other_units_on_the_x_axis(tmp_path, run_dir):
    run_dir(tmp_path / "a", solved=[300])
    curves = results.load_curves(tmp_path)
    for x, factor in (("tokens", 3200), ("seconds", 0.01), ("examples", 32)):
        ax = plots.learning_curves(curves, x).axes[0]
        assert np.allclose(lines(ax)["gru"].get_xdata(), [100 * factor, 200 * factor, 300 * factor])


def test_time_to_threshold_has_a_mark_per_seed(comparison):
    seeds = results.load_seeds(comparison)
    ax = plots.time_to_threshold(seeds).axes[1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["gru", "lstm", "min_gru", "rnn", "sru"]
    rows = {y: [] for y in range(5)}
    bars = {}
    for line in ax.get_lines():
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if len(x) == 1:
            rows[round(y[0])].append((x[0], line.get_marker(), line.get_markerfacecolor()))
        else:
            bars[round(y.mean())] = x[0]
    assert sorted(x for x, _, _ in rows[0]) == [300, 400, 400, 400, 500]
    assert bars == {0: 400, 1: 700, 4: 300}  # two of five and none of five: no median
    assert [x for x, mark, _ in rows[1] if mark == "x"] == [600]  # where it diverged
    assert [(x, mark, face) for x, mark, face in rows[3]] == [(1000, ">", "none")] * 5
    assert texts(ax) == ["5/5 solved", "4/5 solved", "2/5 solved", "0/5 solved", "4/5 solved"]


@pytest.mark.parametrize("unit", plots.UNITS)
def test_no_unsolved_seed_is_placed_past_the_budget_it_had(tmp_path, run_dir, unit):
    """Of runs with other budgets, one of which was stopped."""
    run_dir(tmp_path / "a", solved=[300, None], budget=400)
    run_dir(tmp_path / "b", cell="lstm", solved=[500, None], budget=1900)
    run_dir(tmp_path / "c", cell="rnn", solved=[None], budget=300, budget_steps=5000, status="interrupted")
    seeds = results.load_seeds(tmp_path)
    ax = plots.time_to_threshold(seeds, unit).axes[0]
    hollow = [
        line for line in ax.get_lines() if line.get_marker() == ">" and line.get_markerfacecolor() == "none"
    ]
    a_step = {"step": 1, "examples": 32, "tokens": 3200, "seconds": 0.01}[unit]
    assert np.allclose(sorted(line.get_xdata()[0] / a_step for line in hollow), [300, 400, 1900])
    assert all(tick <= 1900 * a_step for tick in ax.get_xticks())
    run_dir(tmp_path / "all" / "a", solved=[300, 200])
    figure = plots.time_to_threshold(results.load_seeds(tmp_path / "all"))
    assert not any("not solved" in name for name in legend(figure))


@pytest.mark.parametrize("steps, scale", [([100, 1900], "linear"), ([100, 2100], "log")])
def test_the_axis_fits_the_span(tmp_path, run_dir, steps, scale):
    run_dir(tmp_path / "a", solved=steps, budget=4000)
    assert plots.time_to_threshold(results.load_seeds(tmp_path)).axes[0].get_xscale() == scale


def test_a_task_that_nobody_solved(tmp_path, run_dir):
    run_dir(tmp_path / "a", solved=[None, "nan"])
    for unit in plots.UNITS:
        ax = plots.time_to_threshold(results.load_seeds(tmp_path), unit).axes[0]
        assert "0/2 solved" in texts(ax)


def test_colours_belong_to_cells_and_styles_differ(tmp_path, run_dir):
    names = list(dict.fromkeys([*style.known(), "mgu", "min_gru", "min_lstm", "rg_lru"]))
    for name in names:
        run_dir(tmp_path / name, cell=name, solved=[100])
    run_dir(tmp_path / "variant", cell="gru", label="gru, reset after", solved=[100])
    seeds = results.load_seeds(tmp_path)
    look = style.styles(seeds)
    assert len({tuple(map(str, one.values())) for one in look.values()}) == len(names) + 1
    assert look["gru, reset after"]["color"] == look["gru"]["color"]
    for some in (["gru", "mgu"], ["rnn", "gru", "lstm"]):
        part = style.styles(seeds[seeds["cell"].isin(some)])
        known = [name for name in some if name in style.known()]
        assert all(same_color(part[name]["color"], style.known()[name][0]) for name in known)


def test_a_plot_leaves_its_frame_alone(comparison):
    curves, seeds = results.load_curves(comparison), results.load_seeds(comparison)
    before = curves.copy(), seeds.copy()
    plots.learning_curves(curves, "seconds")
    plots.time_to_threshold(seeds, "seconds")
    assert curves.equals(before[0]) and seeds.equals(before[1])


@pytest.mark.parametrize("plot, load", [
    (plots.learning_curves, results.load_curves), (plots.time_to_threshold, results.load_seeds),
])  # fmt: skip
def test_wrong_units_and_empty_frames_are_refused(comparison, plot, load):
    frame = load(comparison)
    with pytest.raises(ValueError, match="'hours'; choices: step, examples, tokens, seconds"):
        plot(frame, "hours")
    with pytest.raises(ValueError, match="no rows"):
        plot(frame.iloc[:0])


def test_a_run_without_summary_is_drawn(tmp_path, run_dir):
    (run_dir(tmp_path / "a", solved=[300]) / "summary.json").unlink()
    ax = plots.learning_curves(results.load_curves(tmp_path)).axes[0]
    assert len(lines(ax)["gru"].get_xdata()) == 3


def test_a_strategy_has_one_line_in_all_figures():
    labels = [f"{cell} {strategy}" for cell in ("sru", "lru") for strategy in style.STRATEGIES]
    look = style.styles(pd.DataFrame({"cell": [label.split()[0] for label in labels], "label": labels}))
    for strategy, line in style.STRATEGIES.items():
        assert {look[f"{cell} {strategy}"]["linestyle"] for cell in ("sru", "lru")} == {line}
    assert set(cells.scans.STRATEGIES) - {"auto"} <= set(style.STRATEGIES)
