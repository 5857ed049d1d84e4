"""Laws of the tasks: every one keeps the contract, and each says what its paper says."""

import collections
import functools
import hashlib
import itertools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import tasks
from train.tasks import base, datasets, mnist, sentence

SHARED = os.environ.get(datasets.VARIABLE) or Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not Path(SHARED).is_dir(), reason=f"no folder in {datasets.VARIABLE}")

CASES = [
    ("adding", dict(length=7, eval_examples=37)),
    ("adding", dict(length=2, eval_examples=5)),
    ("adding", dict(length=3, max_length=9, eval_examples=37)),
    ("copy_memory", dict(length=5, symbols=4, items=3, eval_examples=37)),
    ("copy_memory", dict(length=1, symbols=2, items=1, eval_examples=1)),
    ("copy_memory", dict(length=2, max_length=5, symbols=4, items=3, eval_examples=37)),
    ("delayed_recall", dict(gap=6, eval_examples=37)),
    ("delayed_recall", dict(gap=1, symbols=2, distractors=1)),
    ("delayed_recall", dict(gap=4, max_gap=6, eval_examples=37)),
    ("digits", {}),
    ("digits", dict(pixels_per_step=8)),
    ("mnist", dict(pixels_per_step=28)),
    ("permuted_mnist", dict(pixels_per_step=98)),
    ("sentence", {}),
    ("sentence", dict(dataset="mpqa", fold=9, min_count=2, max_length=3)),
    ("sentence", dict(dataset="trec")),
    ("sentence", dict(dataset="sst2", phrases=False)),
    ("mixed_recall", dict(gap=5, eval_examples=37)),
    ("word_problem", dict(length=5, eval_examples=37)),
    ("word_problem", dict(group="s3", tokens="generators", length=3, max_length=6, eval_examples=37)),
]
FIRST = [next(case for case in CASES if case[0] == name) for name in dict(CASES)]
each_task = pytest.mark.parametrize("name, options", FIRST, ids=lambda x: x if isinstance(x, str) else "")
every_case = pytest.mark.parametrize("name, options", CASES, ids=lambda x: x if isinstance(x, str) else "")
KEY = jax.random.key(0)
SIZE = 16

# Compiled once for all tests, and with little optimisation: compiling random numbers is most of their time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(jit, static_argnums=0)
def train_batch(task, data, key, step):
    return task.train_batch(data, key, step, SIZE)


@functools.partial(jit, static_argnums=(0, 2, 4))
def eval_batch(task, data, split, index, batch_size=SIZE):
    return task.eval_batch(data, split, index, batch_size)


@functools.partial(jit, static_argnums=(0, 1))
def padded_sample(task, count, values):
    return task.sample(KEY, count, **values)


def sample(task, count):
    """Examples of a generated task, made as a program makes them, and cut to their real length."""
    values, time = task.load(), task.spec({}).time
    real = task.real_length(**values) if values else time
    xs, ys, *counted = map(np.asarray, padded_sample(task.static(), count, values))
    assert not any(x[:, real:].any() for x in counted if x.ndim > 1)
    return [x[:, :real] if x.ndim > 1 and x.shape[1] == time else x for x in (xs, ys, *counted)]


# --- made-up data


def idx(array):
    """A uint8 array as the bytes of an idx file."""
    sizes = np.array(array.shape, ">i4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def lines(rng, n, classes, encoding):
    """A file of n sentences of 0 to 8 words, sorted by label, with the real files' traps."""
    traps = ["a\x85b", "c\xa0d", "Cased"] if encoding == "latin-1" else []
    words = [f"word{i}" for i in range(30)] + traps
    rows = [f"{i * classes // n} " + "".join(f"{w} " for w in rng.choice(words, i % 9)) for i in range(n)]
    return "".join(f"{row}\n" for row in rows).encode(encoding)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of made-up files for all real tasks, and the table that takes them for the right ones."""
    rng = np.random.default_rng(0)
    contents = {}
    for part, n in (("train", 5030), ("t10k", 33)):
        contents[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28), np.uint8))
        contents[f"{part}-labels-idx1-ubyte"] = idx(rng.integers(0, 10, n).astype(np.uint8))
    for kind in sentence.SETS.values():
        for file, n in zip((*kind.files, "stsa.binary.train"), (60, 17, 23, 40), strict=False):
            contents[file] = lines(rng, n, kind.classes, kind.encoding)
    contents["stsa.binary.train"] = lines(rng, 40, 2, "utf-8")
    path = tmp_path_factory.mktemp("data")
    for name, content in contents.items():
        (path / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        files = {name: datasets.File("", hashlib.sha256(c).hexdigest(), ()) for name, c in contents.items()}
        patch.setattr(datasets, "FILES", files)
        yield path


@pytest.fixture(scope="module")
def loaded(folder):
    """Name and options -> the task and its made-up data, loaded once."""
    seen = {}

    def load(name, options):
        place = (name, tuple(options.items()))
        if place not in seen:
            task = tasks.get(name, **options)
            seen[place] = task, task.load(folder)
        return seen[place]

    return load


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def cut(batch, *place):
    return jax.tree.map(lambda x: x[place], batch)


def evaluate(task, data, split, batch_size=SIZE):
    """All batches of a split, and one more, as one batch of NumPy arrays."""
    batches = -(-task.eval_size(data, split) // batch_size) + 1
    parts = [eval_batch(task, data, split, i, batch_size) for i in range(batches)]
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


# --- the contract


def test_every_task_is_in_the_cases():
    assert {name for name, _ in CASES} == set(tasks.names())
    assert all(tasks.TASKS.cls(name).name == name for name in tasks.names())


@every_case
def test_spec_and_batch_agree(loaded, name, options):
    task, data = loaded(name, options)
    spec, size = task.spec(data), SIZE
    assert spec == task.spec(jax.tree.map(jnp.asarray, data))
    assert spec.inputs in ("tokens", "features") and spec.pooling in ("last", "mean", "max")
    assert (spec.loss, spec.metric) in (("cross_entropy", "accuracy"), ("squared_error", "mse"))
    better = spec.threshold - spec.baseline
    assert better > 0 if spec.metric == "accuracy" else better < 0
    for batch in (train_batch(task, data, KEY, 3), eval_batch(task, data, "test", 0)):
        tokens = spec.inputs == "tokens"
        assert batch.xs.shape == (size, spec.time) + (() if tokens else (spec.input_size,))
        assert batch.xs.dtype == (jnp.int32 if tokens else jnp.float32)
        assert batch.xs.min() >= 0 and batch.xs.max() <= (spec.input_size - 1 if tokens else 1)
        steps = (size, spec.time) if spec.per_step else (size,)
        if spec.loss == "cross_entropy":
            assert batch.ys.shape == steps and batch.ys.dtype == jnp.int32
            assert batch.ys.min() >= 0 and batch.ys.max() < spec.output_size
        else:
            assert batch.ys.shape == (size, spec.output_size) and batch.ys.dtype == jnp.float32
        assert batch.weights.shape == batch.scored.shape == steps
        assert batch.weights.dtype == batch.scored.dtype == jnp.float32
        if batch.lengths is not None:
            assert batch.lengths.shape == (size,) and batch.lengths.dtype == jnp.int32
            padding = np.arange(spec.time) >= np.asarray(batch.lengths)[:, None]
            assert padding.any() and not (spec.per_step and np.asarray(batch.weights)[padding].any())
            assert name != "sentence" or np.array_equal(np.asarray(batch.xs) == sentence.PADDING, padding)


@every_case
def test_a_batch_is_a_function_of_key_and_step(loaded, name, options):
    task, data = loaded(name, options)
    batches = [train_batch(task, data, jax.random.key(k), s) for k, s in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert same(batches[0], batches[1])
    assert not same(batches[0], batches[2])
    assert not same(batches[0], batches[3])


@each_task
def test_batches_are_the_same_under_jit_scan_and_vmap(loaded, name, options):
    task, data = loaded(name, options)
    data = jax.tree.map(jnp.asarray, data)

    @jit
    def run(data, keys, steps):
        def train(key):
            def step(carry, i):
                return carry, (task.train_batch(data, key, i, SIZE), task.eval_batch(data, "test", i, SIZE))

            return jax.lax.scan(step, 0, steps)[1]

        return jax.vmap(train)(keys)

    keys = jax.random.split(KEY, 2)
    trained, held_out = run(data, keys, jnp.arange(3))
    for k, s in itertools.product(range(2), range(3)):
        assert same(cut(trained, k, s), train_batch(task, data, keys[k], s))
        assert same(cut(held_out, k, s), eval_batch(task, data, "test", s))


@every_case
def test_an_evaluation_counts_every_row_once(loaded, name, options):
    task, data = loaded(name, options)
    per_row = cut(train_batch(task, data, KEY, 0), slice(1))
    for split in base.SPLITS:
        size = task.eval_size(data, split)
        assert type(size) is int and size > 0
        batch = evaluate(task, data, split)
        assert np.array_equal(batch.weights[:size], np.repeat(per_row.weights, size, axis=0))
        assert np.array_equal(batch.scored[:size], np.repeat(per_row.scored, size, axis=0))
        assert not batch.weights[size:].any() and not batch.scored[size:].any()
        if isinstance(task, base.InMemory):
            assert np.array_equal(batch.ys[:size], data[split]["ys"])


@each_task
def test_held_out_rows_do_not_depend_on_the_batch_size(loaded, name, options):
    task, data = loaded(name, options)
    rows = slice(task.eval_size(data, "test"))
    assert same(cut(evaluate(task, data, "test"), rows), cut(evaluate(task, data, "test", 23), rows))


@pytest.mark.parametrize("split", ["train", "dev", ""])
@pytest.mark.parametrize("name", ["adding", "digits"])
def test_other_splits_are_refused(loaded, name, split):
    task, data = loaded(name, {})
    for ask in (lambda: task.eval_size(data, split), lambda: task.eval_batch(data, split, 0, 2)):
        with pytest.raises(ValueError, match=f"^{name}: split must be 'valid' or 'test', got "):
            ask()


@pytest.mark.parametrize("name", ["adding", "copy_memory", "delayed_recall"])
def test_training_and_held_out_examples_are_drawn_apart(name):
    # Long enough that no two examples are alike by chance.
    task = tasks.get(name, **{"gap" if name == "delayed_recall" else "length": 30})
    batches = [train_batch(task, {}, jax.random.key(seed), 0) for seed in range(3)]
    batches += [eval_batch(task, {}, split, 0) for split in base.SPLITS]
    rows = [{row.tobytes() for row in np.asarray(batch.xs)} for batch in batches]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(rows, 2))


def test_held_out_keys_are_no_seed_and_never_change():
    words = {split: jax.random.key_data(base.held_out_key(split)).tolist() for split in base.SPLITS}
    assert words == {"valid": [0x76616C69, 0x64202020], "test": [0x74657374, 0x20202020]}
    with jax.default_prng_impl("rbg"):
        assert jax.random.key_data(base.held_out_key("test")).tolist() == words["test"]


BAD = [
    ("adding", dict(length=1), "length must be at least 2, got 1"),
    ("adding", dict(length=2.5), "length must be an integer, got 2.5"),
    ("adding", dict(eval_examples=0), "eval_examples must be at least 1, got 0"),
    ("copy_memory", dict(length=0), "length must be at least 1, got 0"),
    ("copy_memory", dict(symbols=1), "symbols must be at least 2, got 1"),
    ("copy_memory", dict(items=0), "items must be at least 1, got 0"),
    ("delayed_recall", dict(gap=0), "gap must be at least 1, got 0"),
    ("delayed_recall", dict(gap=True), "gap must be an integer, got True"),
    ("delayed_recall", dict(gap="9"), "gap must be an integer, got '9'"),
    ("delayed_recall", dict(symbols=1), "symbols must be at least 2, got 1"),
    ("delayed_recall", dict(distractors=0), "distractors must be at least 1, got 0"),
    ("adding", dict(length=9, max_length=8), "max_length must be 0 (off) or at least length = 9, got 8"),
    ("copy_memory", dict(max_length=True), "max_length must be an integer, got True"),
    ("delayed_recall", dict(max_gap=-1), "max_gap must be at least 0, got -1"),
    ("digits", dict(pixels_per_step=7), "pixels_per_step must be a divisor of 64, got 7"),
    ("digits", dict(pixels_per_step=0), "pixels_per_step must be at least 1, got 0"),
    ("mnist", dict(pixels_per_step=10), "pixels_per_step must be a divisor of 784, got 10"),
    ("mnist", dict(permuted=1), "permuted must be True or False, got 1"),
    ("mnist", dict(permutation_seed=1), "permutation_seed must be 0 unless permuted, got 1"),
    ("permuted_mnist", dict(permutation_seed=-1), "permutation_seed must be at least 0, got -1"),
    ("permuted_mnist", dict(permutation_seed=2**32), f"permutation_seed must be below 2**32, got {2**32}"),
    ("sentence", dict(dataset="sst1"), "dataset must be a known set (did you mean 'sst2'?"),
    ("sentence", dict(dataset=None), "dataset must be a known set (choices: cr, mr,"),
    ("sentence", dict(fold=10), "fold must be at most 9, got 10"),
    ("sentence", dict(fold=-1), "fold must be at least 0, got -1"),
    ("sentence", dict(dataset="trec", fold=1), "fold must be 0 for trec: it has a test split, got 1"),
    ("sentence", dict(max_length=0), "max_length must be at least 1, got 0"),
    ("sentence", dict(min_count=0), "min_count must be at least 1, got 0"),
    ("sentence", dict(phrases=None), "phrases must be True or False, got None"),
    ("sentence", dict(phrases=False), "phrases must be True for cr: an option of sst2, got False"),
]


@pytest.mark.parametrize("name, options, message", BAD)
def test_a_bad_option_is_refused_with_one_line(name, options, message):
    with pytest.raises(ValueError) as error:
        tasks.get(name, **options)
    assert str(error.value).startswith(f"{name}: {message}") and "\n" not in str(error.value)


def test_a_mistyped_task_or_option_gets_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'copy_memory'"):
        tasks.get("copy_memroy")
    with pytest.raises(ValueError, match="did you mean 'gap'"):
        tasks.get("delayed_recall", gaps=3)


# --- epochs


class Rows(base.InMemory):
    """n rows, each of which is its own number."""

    name = "rows"

    @staticmethod
    def data(n):
        rows = np.arange(n, dtype=np.int32)
        return {split: {"xs": rows[:, None], "ys": rows} for split in ("train", *base.SPLITS)}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 17, 1000, 1257, 60000])
def test_shuffled_is_a_permutation_and_each_epoch_and_key_has_its_own(n):
    orders = [
        base.shuffled(jax.random.key(seed), jnp.full(n, epoch), jnp.arange(n), n)
        for seed, epoch in ((0, 0), (0, 1), (0, 2**31 - 1), (1, 0))
    ]
    assert all(np.array_equal(np.sort(order), np.arange(n)) for order in orders)
    if n >= 17:
        for a, b in itertools.combinations(map(np.asarray, orders), 2):
            assert (a == b).mean() < 0.3
            assert abs(np.corrcoef(a, b)[0, 1]) < 4 / n**0.5
        assert abs(np.corrcoef(orders[0], np.arange(n))[0, 1]) < 4 / n**0.5


def test_shuffled_does_not_depend_on_its_neighbours():
    epochs, positions = jnp.arange(50) // 20, jnp.arange(50) % 20
    together = base.shuffled(KEY, epochs, positions, 20)
    for i in (0, 19, 20, 49):
        assert together[i] == base.shuffled(KEY, epochs[i : i + 1], positions[i : i + 1], 20)[0]


def test_shuffled_puts_every_row_everywhere_alike():
    n, epochs = 12, 6000
    for position in range(n):
        rows = base.shuffled(KEY, jnp.arange(epochs), jnp.full(epochs, position), n)
        counts = np.bincount(rows, minlength=n)
        assert (np.square(counts - epochs / n) / (epochs / n)).sum() < 40  # chi-squared, 11 degrees: p = 4e-5


def test_shuffled_is_a_permutation_for_other_generators_too():
    key = jax.random.key(0, impl="rbg")
    order = base.shuffled(key, jnp.full(100, 3), jnp.arange(100), 100)
    assert np.array_equal(np.sort(order), np.arange(100))


@pytest.mark.parametrize("n, batch_size", [(10, 4), (7, 7), (3, 8), (1, 3), (5, 1)])
def test_training_goes_through_exact_epochs(n, batch_size):
    task, data = Rows(), Rows.data(n)
    answers = jit(jax.vmap(lambda step: task.train_batch(data, KEY, step, batch_size).ys))
    epochs = np.asarray(answers(jnp.arange(3 * n))).reshape(-1, n)
    assert (np.sort(epochs) == np.arange(n)).all()
    if n >= 5:
        assert len({tuple(epoch) for epoch in epochs}) > 1


def test_late_steps_do_not_overflow():
    n, batch_size, step = 60000, 128, 2**31 - 2
    batch = jit(lambda step: Rows().train_batch(Rows.data(n), KEY, step, batch_size))(step)
    positions = [step * batch_size + i for i in range(batch_size)]  # exact: Python's integers
    epochs, places = jnp.array([p // n for p in positions]), jnp.array([p % n for p in positions])
    assert np.array_equal(batch.ys, base.shuffled(KEY, epochs, places, n))


def test_a_batch_too_large_to_count_is_refused():
    with pytest.raises(ValueError, match="^rows: batch size 1000000 is too large for 60000 training rows"):
        jax.eval_shape(lambda: Rows().train_batch(Rows.data(60000), KEY, 0, 10**6))


# --- generated tasks


@pytest.mark.parametrize("length, longest", [(2, 0), (3, 0), (10, 0), (51, 0), (2, 9), (9, 10)])
def test_adding_sums_one_marked_value_of_each_half(length, longest):
    task = tasks.get("adding", length=length, max_length=longest)
    xs, ys, *_ = map(np.asarray, sample(task, 400))
    values, markers = xs[..., 0], xs[..., 1]
    assert xs.shape[1] == length
    assert (values >= 0).all() and (values < 1).all() and set(np.unique(markers)) <= {0.0, 1.0}
    half = length // 2
    assert (markers[:, :half].sum(1) == 1).all() and (markers[:, half:].sum(1) == 1).all()
    assert markers.any(axis=0).all(), "some place is never marked"
    answers = [sum(v for v, m in zip(*row, strict=True) if m) for row in zip(values, markers, strict=True)]
    np.testing.assert_allclose(ys[:, 0], answers, rtol=1e-6)


def test_adding_baseline_is_the_error_of_always_answering_one():
    task = tasks.get("adding", length=2)
    ys = np.asarray(sample(task, 20000)[1])
    assert np.square(ys - 1).mean() == pytest.approx(task.spec({}).baseline, rel=0.03)


@pytest.mark.parametrize("longest", [0, 23])
@pytest.mark.parametrize("length, symbols, items", [(1, 2, 1), (5, 8, 10), (20, 3, 2)])
def test_copy_memory_repeats_the_symbols_after_the_delimiter(length, symbols, items, longest):
    task = tasks.get("copy_memory", length=length, max_length=longest, symbols=symbols, items=items)
    xs, ys, weights, scored = map(np.asarray, sample(task, 100))
    blank, delimiter = symbols, symbols + 1
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        told = x[:items]
        assert max(told) < symbols
        assert x[items:] == [blank] * (length - 1) + [delimiter] + [blank] * items
        assert y == [blank] * (length + items) + told
        assert x.index(delimiter) - items + 1 == length
    assert set(np.unique(xs[:, :items])) == set(range(symbols))
    assert (weights == 1).all()
    assert (scored[:, -items:] == 1).all() and not scored[:, :-items].any()


@pytest.mark.parametrize("longest", [0, 31])
@pytest.mark.parametrize("gap, symbols, distractors", [(1, 2, 1), (5, 8, 8), (30, 3, 1)])
def test_delayed_recall_answers_the_first_token_and_nothing_else_tells(gap, symbols, distractors, longest):
    task = tasks.get("delayed_recall", gap=gap, max_gap=longest, symbols=symbols, distractors=distractors)
    xs, ys, *_ = map(np.asarray, sample(task, 500))
    assert np.array_equal(xs[:, 0], ys) and set(ys) == set(range(symbols))
    fillers = xs[:, 1:-1]
    assert fillers.shape[1] == gap and set(np.unique(fillers)) == set(range(symbols, symbols + distractors))
    assert (xs[:, -1] == symbols + distractors).all()
    for y in range(symbols):  # fillers look alike whatever the answer
        counts = np.bincount(fillers[ys == y].ravel() - symbols, minlength=distractors)
        np.testing.assert_allclose(counts / counts.sum(), 1 / distractors, atol=0.12)


# --- real tasks


def test_digits_split_every_image_once_and_evenly(loaded):
    from sklearn.datasets import load_digits

    task, data = loaded("digits", {})
    assert {split: len(part["ys"]) for split, part in data.items()} == dict(train=1257, valid=180, test=360)
    xs, ys = load_digits(return_X_y=True)
    rows = np.concatenate([np.column_stack([part["xs"], part["ys"]]) for part in data.values()])
    count, original = (
        collections.Counter(row.tobytes() for row in table.astype(np.int32))
        for table in (rows, np.column_stack([xs, ys]))
    )
    assert count == original
    for part in data.values():
        shares = np.bincount(part["ys"], minlength=10) / len(part["ys"])
        np.testing.assert_allclose(shares, np.bincount(ys) / len(ys), atol=0.005)
    assert same(data, task.load())


def test_pixels_per_step_only_cuts_the_sequence(loaded):
    slow, data = loaded("digits", {})
    rows, _ = loaded("digits", dict(pixels_per_step=8))
    a, b = slow.eval_batch(data, "test", 0, 9), rows.eval_batch(data, "test", 0, 9)
    assert b.xs.shape == (9, 8, 8) and np.array_equal(a.xs.reshape(9, 8, 8), b.xs)
    assert a.xs.max() == 1
    assert np.array_equal(a.xs[..., 0] * 16, data["test"]["xs"][:9])


def test_mnist_reads_idx_and_permutes_all_images_alike(loaded, folder):
    plain, data = loaded("mnist", dict(pixels_per_step=28))
    _, permuted = loaded("permuted_mnist", dict(pixels_per_step=98))
    assert {split: len(part["ys"]) for split, part in data.items()} == dict(train=30, valid=5000, test=33)
    raw = datasets.read("t10k-images-idx3-ubyte", folder)
    images = np.frombuffer(raw[16:], np.uint8).reshape(33, 784)
    assert np.array_equal(data["test"]["xs"], images)
    assert np.array_equal(mnist.parse(raw).reshape(33, 784), images)
    batch = plain.eval_batch(data, "test", 0, 33)
    np.testing.assert_allclose(batch.xs.reshape(33, 784), images / 255, rtol=1e-6)
    order = np.random.RandomState(0).permutation(784)
    for split in data:
        assert np.array_equal(permuted[split]["xs"], data[split]["xs"][:, order])
        assert np.array_equal(permuted[split]["ys"], data[split]["ys"])
    other = tasks.get("permuted_mnist", permutation_seed=1).load(folder)
    assert not same(other["test"], permuted["test"])


def test_lines_end_at_newlines_and_words_at_spaces_only():
    raw = "1 a\x85b  c\xa0d É \n0 \n0\n2 x\n".encode("latin-1")
    rows = [(1, ["a\x85b", "c\xa0d", "É"]), (0, []), (0, []), (2, ["x"])]
    assert sentence.parse(raw, "latin-1", lower=False) == rows
    assert sentence.parse(raw, "latin-1", lower=True)[0][1][-1] == "é"


def test_the_vocabulary_holds_frequent_training_words_by_frequency():
    rows = [(0, ["b", "a", "c"]), (1, ["a", "b", "a"]), (1, [])]
    assert sentence.vocabulary(rows, 1)[2:] == ["a", "b", "c"]
    assert sentence.vocabulary(rows, 2)[2:] == ["a", "b"]


def test_sentences_are_cut_at_the_end_and_unknown_words_are_one():
    ids = {"<padding>": 0, "<unknown>": 1, "a": 2, "b": 3}
    data = sentence.encode([(1, ["a", "z", "b", "b"]), (0, []), (0, ["b"])], ids, 3)
    assert data["xs"].tolist() == [[2, 1, 3], [0, 0, 0], [3, 0, 0]]
    assert data["lengths"].tolist() == [3, 0, 1] and data["ys"].tolist() == [1, 0, 0]


@pytest.mark.parametrize("n", [23, 1000])
def test_folds_share_no_row_and_together_test_each_row_once(n):
    folds = [sentence.split_rows(n, fold, with_test=True) for fold in range(10)]
    for rows in folds:
        assert sorted(itertools.chain(*rows.values())) == list(range(n))
    assert sorted(itertools.chain(*(rows["test"] for rows in folds))) == list(range(n))
    rows = sentence.split_rows(n, 0, with_test=False)
    assert sorted(rows["train"] + rows["valid"]) == list(range(n))


# What the data's own description says: rows, longest row, rows of each label, empty rows.
REAL = {
    "cr": (3775, 106, [1368, 2407], 4),
    "mr": (10662, 59, [5331, 5331], 0),
    "subj": (10000, 120, [5000, 5000], 0),
    "mpqa": (10606, 44, [7294, 3312], 3),
    "trec": (5952, 37, [1300, 1344, 95, 1288, 916, 1009], 0),
    "sst2": (79654, 56, [36042, 43612], 0),
}


@pytest.fixture
def real(monkeypatch):
    monkeypatch.setattr(datasets, "FILES", FILES)


@needs_data
@pytest.mark.parametrize("dataset", REAL)
def test_real_sentences_are_all_there_and_only_training_words_are_known(real, dataset):
    count, longest, labels, empty = REAL[dataset]
    task = tasks.get("sentence", dataset=dataset)
    data, splits = task.load(SHARED), task.splits(SHARED)
    parts = [data[split] for split in ("train", "valid", "test")]
    ys = np.concatenate([part["ys"] for part in parts])
    lengths = np.concatenate([part["lengths"] for part in parts])
    assert len(ys) == count and np.bincount(ys).tolist() == labels
    assert lengths.max() == task.spec(data).time == longest and (lengths == 0).sum() == empty
    if dataset in ("trec", "sst2"):
        assert len(data["test"]["ys"]) == {"trec": 500, "sst2": 1821}[dataset]
    else:
        assert abs(len(data["test"]["ys"]) - count / 10) < 1
        assert len(data["valid"]["ys"]) / len(data["train"]["ys"]) == pytest.approx(1 / 9, rel=0.02)
        for part in parts:  # the files are sorted by label, the folds must not be
            assert part["ys"].mean() == pytest.approx(ys.mean(), abs=0.06)

    words = sentence.vocabulary(splits["train"], 1)
    known = {word for _, row in splits["train"] for word in row}
    assert set(words[2:]) == known and len(words) == len(known) + 2 == task.spec(data).input_size
    for split, rows in splits.items():
        for x, length, (_, row) in zip(data[split]["xs"], data[split]["lengths"], rows, strict=True):
            told = [word if word in known else "<unknown>" for word in row]
            assert [words[i] for i in x[:length]] == told and not x[length:].any()
    assert not (data["train"]["xs"] == sentence.UNKNOWN).any()
    assert (data["test"]["xs"] == sentence.UNKNOWN).any()


@needs_data
def test_real_sst2_can_train_on_sentences(real):
    data = tasks.get("sentence", dataset="sst2", phrases=False).load(SHARED)
    assert [len(data[split]["ys"]) for split in ("train", "valid", "test")] == [6920, 872, 1821]


@needs_data
def test_real_trec_keeps_its_case(real):
    words = sentence.vocabulary(tasks.get("sentence", dataset="trec").splits(SHARED)["train"], 1)
    assert "What" in words and "what" in words


@needs_data
def test_real_mnist_is_all_there(real):
    data = tasks.get("mnist").load(SHARED)
    assert [len(data[split]["ys"]) for split in ("train", "valid", "test")] == [55000, 5000, 10000]
    train = np.bincount(data["train"]["ys"]) + np.bincount(data["valid"]["ys"])
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data["test"]["ys"][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    train, valid = ({row.tobytes() for row in data[split]["xs"]} for split in ("train", "valid"))
    assert train.isdisjoint(valid)


FILES = datasets.FILES  # the real table, from before any test replaces it
