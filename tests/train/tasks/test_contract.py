"""Every task keeps the contract."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from batches import KEY, SIZE, cut, eval_batch, evaluate, same, train_batch
from compiling import jit
from train import tasks
from train.tasks import base, sentence
from train.tasks.meaning import Meaning

CASES = [
    ("adding", dict(length=7, eval_examples=37)),
    ("adding", dict(length=3, max_length=9, eval_examples=37)),
    ("associative_recall", dict(length=8, max_length=12, pairs=2, eval_pairs=1, eval_examples=37)),
    ("cifar10", dict(pixels_per_step=32)),
    ("copy_memory", dict(length=5, symbols=4, items=3, eval_examples=37)),
    ("copy_memory", dict(length=2, max_length=5, symbols=4, items=3, eval_examples=37)),
    ("delayed_recall", dict(gap=6, eval_examples=37)),
    ("delayed_recall", dict(gap=4, max_gap=6, eval_examples=37)),
    ("digits", dict(pixels_per_step=8)),
    ("induction_heads", dict(length=6, max_length=9, eval_examples=37)),
    ("listops", dict(max_length=20, train_examples=100, eval_examples=37)),
    ("mnist", dict(pixels_per_step=28)),
    ("permuted_mnist", dict(pixels_per_step=98)),
    ("selective_copying", dict(length=5, max_length=9, eval_length=7, eval_examples=37)),
    ("sentence", {}),
    ("sentence", dict(dataset="mpqa", fold=9, min_count=2, max_length=3)),
    ("sentence", dict(dataset="sst2", phrases=False)),
    ("mixed_recall", dict(gap=5, eval_examples=37)),
    ("music", {}),
    ("music", dict(dataset="piano")),
    ("text", dict(length=11)),
    ("text", dict(dataset="shakespeare", length=7, valid_limit=20)),
    ("arrays", dict(path="own.npz", standardize=False)),
    ("arrays", dict(path="own.csv", answer="forecast", features="x,y", horizon=2, standardize=False)),
    ("documents", dict(path="texts")),
    ("series", dict(standardize=False)),
    ("word_problem", dict(length=5, eval_examples=37)),
    ("word_problem", dict(group="s3", tokens="generators", length=3, max_length=6, eval_examples=37)),
    ("word_problem", dict(length=6, min_length=2, answers="last", eval_examples=37)),
]
# A case of each kind: padded, with a scan of its own, in memory, with lengths, with a target at every step.
KINDS = [
    ("delayed_recall", dict(gap=4, max_gap=6, eval_examples=37)),
    ("word_problem", dict(group="s3", tokens="generators", length=3, max_length=6, eval_examples=37)),
    ("digits", dict(pixels_per_step=8)),
    ("sentence", {}),
    ("music", {}),
]
KNOWN = [
    ("cross_entropy", "accuracy"),
    ("cross_entropy", "bits_per_character"),
    ("squared_error", "mse"),
    ("binary_cross_entropy", "frame_nll"),
]
READ_ON = ("text",)  # see test_text


def over(cases):
    """Tests over cases; those of one case run in one process, which compiles its programs once. More than one
    of a task, but for KINDS, are slow."""
    params, seen = [], {name for name, _ in KINDS}
    for name, options in cases:
        marks = [pytest.mark.xdist_group(f"{name} {options}")]
        marks += [pytest.mark.slow] * (name in seen and (name, options) not in KINDS)
        params.append(pytest.param(name, options, id=name, marks=marks))
        seen.add(name)
    return pytest.mark.parametrize("name, options", params)


every_case, each_kind = over(CASES), over(KINDS)
with_data = over([case for case in CASES if not issubclass(tasks.TASKS.cls(case[0]), base.Synthetic)])


def test_every_task_is_in_the_cases():
    assert {name for name, _ in CASES} == set(tasks.names())
    assert all(tasks.TASKS.cls(name).name == name for name in tasks.names())


@every_case
def test_spec_and_batch_agree(loaded, name, options):
    task, data = loaded(name, options)
    spec, size = task.spec(data), SIZE
    assert spec == task.spec(jax.tree.map(jnp.asarray, data))
    assert (spec.inputs, spec.per_step) == (task.input_kind or spec.inputs, task.per_step)
    assert spec.inputs in ("tokens", "features") and spec.pooling in ("last", "mean", "max")
    assert (spec.loss, spec.metric) in KNOWN
    better = spec.threshold - spec.baseline
    assert better > 0 if spec.metric == "accuracy" else better < 0
    trained, held_out = train_batch(task, data, KEY, 3), eval_batch(task, data, "test", 0)
    for batch, time in ((trained, spec.time), (held_out, spec.eval_time or spec.time)):
        tokens = spec.inputs == "tokens"
        assert batch.xs.shape == (size, time) + (() if tokens else (spec.input_size,))
        assert batch.xs.dtype == (jnp.int32 if tokens else jnp.float32)
        assert batch.xs.min() >= 0 and batch.xs.max() <= (spec.input_size - 1 if tokens else 1)
        steps = (size, time) if spec.per_step else (size,)
        if spec.loss == "cross_entropy":
            assert batch.ys.shape == steps and batch.ys.dtype == jnp.int32
            assert batch.ys.min() >= 0 and batch.ys.max() < spec.output_size
        else:
            assert batch.ys.shape == (*steps, spec.output_size) and batch.ys.dtype == jnp.float32
        assert batch.weights.shape == batch.scored.shape == steps
        assert batch.weights.dtype == batch.scored.dtype == jnp.float32
        if batch.lengths is not None:
            assert batch.lengths.shape == (size,) and batch.lengths.dtype == jnp.int32
            padding = np.arange(time) >= np.asarray(batch.lengths)[:, None]
            assert padding.any() and not (spec.per_step and np.asarray(batch.weights)[padding].any())
            assert name != "sentence" or np.array_equal(np.asarray(batch.xs) == sentence.PADDING, padding)


@with_data
def test_baseline_and_threshold_are_of_validation_and_know_nothing_of_test(loaded, name, options):
    task, data = loaded(name, options)
    spec = task.spec(data)
    assert task.spec(data | {"test": data["train"]}) == spec
    one = jax.tree.map(lambda x: x[:1], data["train"])  # a row, or a character
    assert task.spec(data | {"valid": one}).baseline != spec.baseline


@every_case
def test_names_of_tokens_and_classes_are_as_many_as_there_are(loaded, name, options):
    task, data = loaded(name, options)
    spec, meaning = task.spec(data), task.meaning(data)
    assert Meaning.from_dict(json.loads(json.dumps(meaning.to_dict()))) == meaning
    assert len(meaning.tokens) in (0, spec.input_size) and len(meaning.classes) in (0, spec.output_size)
    text = "a good film"
    if meaning.tokens:
        assert all(isinstance(token, str) for token in task.as_tokens(text))
    else:
        with pytest.raises(ValueError, match=f"{name} reads no text"):
            task.as_tokens(text)


@every_case
def test_a_batch_is_a_function_of_key_and_step(loaded, name, options):
    task, data = loaded(name, options)
    batches = [train_batch(task, data, jax.random.key(k), s) for k, s in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert same(batches[0], batches[1])
    assert not same(batches[0], batches[2])
    assert not same(batches[0], batches[3])


@each_kind
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
    if task.spec(data).reads_on:
        assert name in READ_ON
        return
    trained = train_batch(task, data, KEY, 0)
    per_row, alike = cut(trained, slice(1)), (trained.weights == trained.weights[:1]).all()
    if isinstance(task, base.Synthetic):
        alike &= task.held_out(data)[0] == task
    for split in base.SPLITS if (name, options) in KINDS else ["test"]:
        size = task.eval_size(data, split)
        assert type(size) is int and size > 0
        batch = evaluate(task, data, split)
        want = [np.repeat(part, size, axis=0) for part in (per_row.weights, per_row.scored)]
        if isinstance(task, base.InMemory) and task.per_step:  # rows differ in length
            want = [np.arange(batch.xs.shape[1]) < batch.lengths[:size, None]] * 2
        elif not alike:  # what counts is drawn, or differs from training
            whole = eval_batch(task, data, split, 0, size)
            want = [whole.weights, whole.scored]
            assert all(counts.reshape(size, -1).any(axis=1).all() for counts in want)
        assert np.array_equal(batch.weights[:size], want[0]) and np.array_equal(batch.scored[:size], want[1])
        assert not batch.weights[size:].any() and not batch.scored[size:].any()
        if isinstance(task, base.InMemory) and not task.per_step:
            assert np.array_equal(batch.ys[:size], data[split]["ys"])


@each_kind
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


def test_training_and_held_out_examples_are_drawn_apart():
    task = tasks.get("delayed_recall", gap=30)  # so long that no two examples are alike by chance
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
    ("associative_recall", dict(length=8, pairs=3), "length must be at least 4 * pairs = 12, got 8"),
    ("associative_recall", dict(vocabulary=8), "pairs must be at most 3, the number of keys, got 4"),
    ("associative_recall", dict(eval_pairs=17), "eval_pairs must be such that 4 * 17 pairs fit into 64"),
    ("associative_recall", dict(eval_length=8), "eval_length must be such that 4 * 4 pairs fit into 8 held"),
    ("associative_recall", dict(power=0.0), "power must be above 0 and below 100, got 0.0"),
    ("associative_recall", dict(random_fillers=1), "random_fillers must be True or False, got 1"),
    ("induction_heads", dict(length=2), "length must be at least 3, got 2"),
    ("induction_heads", dict(symbols=1), "symbols must be at least 2, got 1"),
    ("selective_copying", dict(length=3), "length must be at least items = 4, got 3"),
    ("selective_copying", dict(eval_length=3), "eval_length must be at least items = 4, got 3"),
    ("selective_copying", dict(symbols=1), "symbols must be at least 2, got 1"),
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
    ("adding", dict(eval_length=1), "eval_length must be 0 (as length) or at least 2, got 1"),
    ("delayed_recall", dict(eval_gap=1.5), "eval_gap must be an integer, got 1.5"),
    ("digits", dict(pixels_per_step=7), "pixels_per_step must be a divisor of 64, got 7"),
    ("digits", dict(pixels_per_step=0), "pixels_per_step must be at least 1, got 0"),
    ("listops", dict(min_length=9, max_length=8), "min_length must be at most max_length = 8, got 9"),
    ("listops", dict(max_depth=1), "max_depth must be at least 2, got 1"),
    ("listops", dict(train_examples=0), "train_examples must be at least 1, got 0"),
    ("mnist", dict(pixels_per_step=10), "pixels_per_step must be a divisor of 784, got 10"),
    ("cifar10", dict(grey=1), "grey must be True or False, got 1"),
    ("mnist", dict(permuted=1), "permuted must be True or False, got 1"),
    ("mnist", dict(permutation_seed=1), "permutation_seed must be 0 unless permuted, got 1"),
    ("permuted_mnist", dict(permutation_seed=-1), "permutation_seed must be at least 0, got -1"),
    ("permuted_mnist", dict(permutation_seed=2**32), f"permutation_seed must be below {2**31}, got {2**32}"),
    ("sentence", dict(dataset="sst1"), "dataset must be a known set (did you mean 'sst2'?"),
    ("sentence", dict(dataset=None), "dataset must be a known set (choices: cr, mr,"),
    ("sentence", dict(fold=10), "fold must be at most 9, got 10"),
    ("sentence", dict(fold=-1), "fold must be at least 0, got -1"),
    ("sentence", dict(dataset="trec", fold=1), "fold must be 0 for trec: it has a test split, got 1"),
    ("sentence", dict(max_length=0), "max_length must be at least 1, got 0"),
    ("sentence", dict(min_count=0), "min_count must be at least 1, got 0"),
    ("text", dict(dataset="shakespaere"), "dataset must be a known text (did you mean 'shakespeare'?"),
    ("text", dict(dataset="own"), "path must be the file of your text, with dataset=own, got ''"),
    ("text", dict(path="a.txt"), "path must be empty, or dataset 'own', got 'a.txt'"),
    ("text", dict(length=0), "length must be at least 1, got 0"),
    ("music", dict(dataset="jbs"), "dataset must be a known set (did you mean 'jsb'?"),
    ("arrays", dict(answer="clas"), "answer must be known (did you mean 'class'?"),
    ("arrays", dict(horizon=2), "horizon must be 1 with answer=class, got 2"),
    ("arrays", dict(answer="forecast", horizon=0), "horizon must be at least 1, got 0"),
    ("arrays", dict(window=-1), "window must be at least 0, got -1"),
    ("arrays", dict(split_by="time"), "split_by must be sequence with answer=class, got 'time'"),
    ("arrays", dict(split_by="tme"), "split_by must be known (did you mean 'time'?"),
    (
        "arrays",
        dict(answer="forecast", split_by="time", split_seed=1),
        "split_seed must be 0 with split_by=time, where nothing is drawn, got 1",
    ),
    ("arrays", dict(max_length=0), "max_length must be at least 1, got 0"),
    ("arrays", dict(gaps="fill"), "gaps must be known (choices: refuse, indicator, skip), got 'fill'"),
    ("arrays", dict(times="difrence"), "times must be known (did you mean 'difference'?"),
    ("arrays", dict(standardize=1), "standardize must be True or False, got 1"),
    ("arrays", dict(class_weights="1,x"), "class_weights must be empty, balanced, or numbers"),
    ("arrays", dict(class_weights="0,0"), "class_weights must be empty, balanced, or numbers"),
    (
        "arrays",
        dict(answer="number", class_weights="balanced"),
        "class_weights must be empty with answer=number, got 'balanced'",
    ),
    ("arrays", dict(answer="number", ignore_label=1), "ignore_label must be None with answer=number, got 1"),
    ("arrays", dict(loss="hubr"), "loss must be known (did you mean 'huber'?"),
    ("arrays", dict(loss="huber"), "loss must be of classes (choices: cross_entropy), got 'huber'"),
    ("arrays", dict(metric="mse"), "metric must be of classes (choices: accuracy,"),
    (
        "arrays",
        dict(answer="number", loss="binary_cross_entropy", metric="mse"),
        "metric must be of numbers with loss=binary_cross_entropy (choices: frame_nll), got 'mse'",
    ),
    ("arrays", dict(threshold=float("nan")), "threshold must be a number, got nan"),
    ("arrays", dict(target="a,b"), "target must be one column with answer=class, got 'a,b'"),
    ("arrays", dict(path=None), "path must be text, got None"),
    ("arrays", dict(valid_fraction=1.0), "valid_fraction must be between 0 and 1, got 1.0"),
    ("arrays", dict(test_fraction=0.9), "valid_fraction must be so small that some train, got None"),
    ("documents", dict(level="chars"), "level must be known (did you mean 'characters'?"),
    ("documents", dict(lower=None), "lower must be True or False, got None"),
    ("documents", dict(min_count=0), "min_count must be at least 1, got 0"),
    ("series", dict(dataset="Gunpoint"), "dataset must be a known set (did you mean 'GunPoint'?"),
    ("series", dict(answer="number"), "answer must be class or forecast with dataset=BasicMotions"),
    ("series", dict(test_fraction=0.2), "test_fraction must be None: the sets have a test split, got 0.2"),
    ("series", dict(times="value"), "times must be none: the sets have no time stamps, got 'value'"),
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
