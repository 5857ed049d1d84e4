"""Whole models in other libraries: exact round trips, refusals, and their own layers run on our weights."""

import functools
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import cells
from compiling import jit
from models import (
    BATCH,
    FEATURES,
    HIDDEN,
    LENGTHS,
    OUTPUTS,
    TIME,
    VOCABULARY,
    cell_of,
    inputs_of,
    normal_params,
    spec_of,
)
from train import exchange
from train.model import ModelConfig, build

FORMATS = ("torch", "flax_nnx", "flax_linen", "keras")
CELLS = {"rnn": {}, "rnn-relu": {"activation": "relu"}, "lstm": {}, "gru": {"reset_after": True}}
SHAPES = list(itertools.product((1, 2, 3), (False, True), ("tokens", "features", "dense")))


class Whole:
    """A model, its parameters, inputs and outputs at every step."""

    def __init__(self, name, depth=2, bidirectional=False, inputs="features", **options):
        options = {**CELLS.get(name, {}), **options}
        self.name, self.depth, self.bidirectional, self.inputs = name, depth, bidirectional, inputs
        self.cell = cell_of(name.split("-")[0], **options)
        self.config = ModelConfig(
            depth=depth, bidirectional=bidirectional, embedding_size=5 if inputs == "dense" else 0
        )
        self.spec = spec_of("tokens" if inputs == "tokens" else "features", per_step=True)
        self.model = build(self.cell, self.spec, self.config)
        self.params = jax.tree.map(np.float32, normal_params(self.model))
        self.xs = inputs_of(self.spec)
        self.xs = self.xs if inputs == "tokens" else np.float32(self.xs)

    def without_c_n(self):
        """What nnx has no place for is zero."""
        for layer in self.params["layers"].values():
            for params in layer.values():
                params["c_n"] = np.zeros_like(params["c_n"])

    def outputs(self, lengths=None):
        return np.asarray(jit(self.model.apply)(self.params, self.xs, lengths))

    def to(self, library, **options):
        return getattr(exchange, f"to_{library}")(self.cell, self.config, self.params, **options)

    def back(self, library, state):
        return getattr(exchange, f"from_{library}")(self.cell, self.config, state)


def few(names):
    """One with several layers and directions, that with the most gates; the others are slow, each at a third
    of the shapes."""
    cases = []
    for i, name in enumerate(names):
        for j, shape in enumerate(SHAPES):
            label = f"{name}-{shape[0]}-{'both' if shape[1] else 'one'}-{shape[2]}"
            marks = [pytest.mark.slow] * (name != "lstm" or shape != (2, True, "tokens"))
            if not marks or (i + j) % 3 == 0:
                cases.append(pytest.param(name, *shape, id=label, marks=marks))
    return cases


WHOLE = functools.partial(pytest.mark.parametrize, "name, depth, both, inputs")


def close(got, want, lengths=None):
    real = np.ones((BATCH, TIME), bool) if lengths is None else np.arange(TIME) < lengths[:, None]
    np.testing.assert_allclose(np.asarray(got)[real], want[real], rtol=2e-5, atol=2e-5)


# --- there and back


@pytest.mark.parametrize("library", FORMATS)
@pytest.mark.parametrize(
    "depth, both, inputs",
    [pytest.param(*shape, marks=[pytest.mark.slow] * (i % 8 != 3)) for i, shape in enumerate(SHAPES)],
)
def test_there_and_back_is_exact(library, depth, both, inputs):
    """Of one cell after the other; which arrays stand where is told by the tests below."""
    names = [*CELLS, *["gru-before"] * (library == "keras"), *["sru", "sru_feedback"] * (library == "torch")]
    name = names[(depth + 3 * both + SHAPES.index((depth, both, inputs))) % len(names)]
    options = {"highway": False} if "sru" in name and both else {}
    whole = Whole(name, depth, both, inputs, **options)
    if library == "flax_nnx" and name == "gru":
        whole.without_c_n()
    state = whole.to(library)
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(state))
    again = whole.back(library, state)
    assert jax.tree.structure(again) == jax.tree.structure(whole.params)
    jax.tree.map(np.testing.assert_array_equal, again, whole.params)


# --- the libraries' own layers


class InNnx(nnx.Module):
    def __init__(self, whole, cell):
        rngs = nnx.Rngs(0)

        def rnn(size):
            return nnx.RNN(cell(size, HIDDEN, rngs=rngs))

        size, width = FEATURES, HIDDEN * (2 if whole.bidirectional else 1)
        if whole.inputs == "tokens":
            self.embed, size = nnx.Embed(VOCABULARY, HIDDEN, rngs=rngs), HIDDEN
        if whole.inputs == "dense":
            self.dense, size = nnx.Linear(FEATURES, 5, rngs=rngs), 5
        self.layers = nnx.List()
        for _ in range(whole.depth):
            both = nnx.Bidirectional(rnn(size), rnn(size)) if whole.bidirectional else rnn(size)
            self.layers.append(both)
            size = width
        self.head = nnx.Linear(width, OUTPUTS, rngs=rngs)

    def __call__(self, xs, lengths):
        for name in ("embed", "dense"):
            xs = getattr(self, name)(xs) if hasattr(self, name) else xs
        for layer in self.layers:
            xs = layer(xs, seq_lengths=lengths)
        return self.head(xs)


NNX = {
    "rnn": nnx.SimpleCell,
    "rnn-relu": functools.partial(nnx.SimpleCell, activation_fn=jax.nn.relu),
    "lstm": nnx.LSTMCell,
    "lstm-optimized": nnx.OptimizedLSTMCell,
    "gru": nnx.GRUCell,
}


@WHOLE(few(NNX))
def test_flax_nnx(name, depth, both, inputs):
    whole = Whole(name, depth, both, inputs)
    if name == "gru":
        whole.without_c_n()
    theirs = InNnx(whole, NNX[name])
    graph, state = nnx.split(theirs)
    nnx.update(theirs, whole.to("flax_nnx", **({"optimized": True} if "optimized" in name else {})))
    assert jax.tree.structure(nnx.state(theirs)) == jax.tree.structure(state)
    got = jit(lambda state, xs, lengths: nnx.merge(graph, state)(xs, lengths))(
        nnx.state(theirs), whole.xs, LENGTHS
    )
    close(got, whole.outputs(LENGTHS), LENGTHS)
    jax.tree.map(np.testing.assert_array_equal, whole.back("flax_nnx", theirs), whole.params)


class InLinen(linen.Module):
    cell: object
    depth: int
    both: bool
    inputs: str

    def setup(self):
        def rnn():
            return linen.RNN(self.cell(HIDDEN))

        if self.inputs == "tokens":
            self.embed = linen.Embed(VOCABULARY, HIDDEN)
        if self.inputs == "dense":
            self.dense = linen.Dense(5)
        self.layers = [linen.Bidirectional(rnn(), rnn()) if self.both else rnn() for _ in range(self.depth)]
        self.head = linen.Dense(OUTPUTS)

    def __call__(self, xs, lengths):
        xs = {"tokens": getattr(self, "embed", None), "dense": getattr(self, "dense", None)}.get(
            self.inputs, lambda xs: xs
        )(xs)
        for layer in self.layers:
            xs = layer(xs, seq_lengths=lengths)
        return self.head(xs)


LINEN = {
    "rnn": linen.SimpleCell,
    "rnn-relu": functools.partial(linen.SimpleCell, activation_fn=jax.nn.relu),
    "lstm": linen.LSTMCell,
    "lstm-optimized": linen.OptimizedLSTMCell,
    "gru": linen.GRUCell,
}


@WHOLE(few(LINEN))
def test_flax_linen(name, depth, both, inputs):
    whole = Whole(name, depth, both, inputs)
    module = InLinen(LINEN[name], depth, both, inputs)
    params = whole.to("flax_linen")
    want = jax.eval_shape(module.init, jax.random.key(0), whole.xs, LENGTHS)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, want)
    close(jit(module.apply)({"params": params}, whole.xs, LENGTHS), whole.outputs(LENGTHS), LENGTHS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")  # of NumPy 2, in Keras itself
@WHOLE(few(["rnn", "rnn-relu", "lstm", "gru", "gru-before"]))
def test_keras(name, depth, both, inputs):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    whole = Whole(name, depth, both, inputs)
    kind = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[
        name[:4].strip("-")
    ]
    options = {"rnn-relu": {"activation": "relu"}, "gru-before": {"reset_after": False}}.get(name, {})
    first = {
        "tokens": [keras.layers.Embedding(VOCABULARY, HIDDEN)],
        "dense": [keras.layers.Dense(5)],
        "features": [],
    }[inputs]
    layers = [kind(HIDDEN, return_sequences=True, **options) for _ in range(depth)]
    layers = [keras.layers.Bidirectional(layer) for layer in layers] if both else layers
    shape = (TIME,) if inputs == "tokens" else (TIME, FEATURES)
    theirs = keras.Sequential([keras.Input(shape), *first, *layers, keras.layers.Dense(OUTPUTS)])
    theirs.set_weights(whole.to("keras"))
    close(theirs(whole.xs), whole.outputs())
    jax.tree.map(np.testing.assert_array_equal, whole.back("keras", theirs.get_weights()), whole.params)


@WHOLE(few(["rnn", "rnn-relu", "lstm", "gru"]))
def test_torch(name, depth, both, inputs):
    torch = pytest.importorskip("torch")
    whole = Whole(name, depth, both, inputs)
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name.split("-")[0]]
    options = {"nonlinearity": "relu"} if name == "rnn-relu" else {}
    first = {
        "tokens": {"embed": torch.nn.Embedding(VOCABULARY, HIDDEN)},
        "dense": {"dense": torch.nn.Linear(FEATURES, 5)},
        "features": {},
    }[inputs]
    size = {"tokens": HIDDEN, "dense": 5, "features": FEATURES}[inputs]
    rnn = kind(size, HIDDEN, depth, batch_first=True, bidirectional=both, **options)
    head = torch.nn.Linear(HIDDEN * (1 + both), OUTPUTS)
    theirs = torch.nn.ModuleDict({**first, "rnn": rnn, "head": head})
    theirs.load_state_dict({key: torch.from_numpy(x.copy()) for key, x in whole.to("torch").items()})
    with torch.no_grad():
        xs = torch.from_numpy(whole.xs)
        for part in first:
            xs = theirs[part](xs)
        lengths = np.maximum(LENGTHS, 1)  # torch takes no empty rows
        xs = torch.nn.utils.rnn.pack_padded_sequence(
            xs, torch.from_numpy(lengths), True, enforce_sorted=False
        )
        ys = torch.nn.utils.rnn.pad_packed_sequence(rnn(xs)[0], batch_first=True)[0]
        close(head(ys).numpy(), whole.outputs(lengths), lengths)
    jax.tree.map(np.testing.assert_array_equal, whole.back("torch", theirs.state_dict()), whole.params)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(
    "name, options",
    [
        ("sru", {}),
        ("sru_feedback", {}),
        ("sru", {"projection": 2, "highway": False}),
        ("sru", {"highway": False}),
    ],
    ids=str,
)
@pytest.mark.parametrize("both", [False, True])
def test_the_sru_package(name, options, depth, both):
    torch = pytest.importorskip("torch")
    sru = pytest.importorskip("sru")
    cell = cell_of(name, **options)
    if both and (cell.highway or cell.projection):
        return  # refused, below
    whole = Whole(name, depth, both, **options)
    theirs = sru.SRU(
        FEATURES, HIDDEN, depth, bidirectional=both, rescale=cell.rescale, has_skip_term=cell.highway,
        projection_size=cell.projection,
    )  # fmt: skip
    state = {key.partition(".")[2]: x for key, x in whole.to("torch").items() if key.startswith("rnn.")}
    theirs.load_state_dict({key: torch.from_numpy(x.copy()) for key, x in state.items()})
    with torch.no_grad():
        ys, _ = theirs(torch.from_numpy(whole.xs).transpose(0, 1))
    want = jit(whole.model.hidden_states)(whole.params, whole.xs)[-1]
    np.testing.assert_allclose(ys.transpose(0, 1).numpy(), want, rtol=2e-5, atol=2e-5)


# --- refusals


def refused(call, *words):
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), error.value


@pytest.mark.parametrize("library", FORMATS)
def test_what_a_library_lacks_is_refused_with_the_option_that_it_has(library):
    own = {"block": "gated", "connection": "residual", "layer_norm": "pre"}
    whole = Whole("lstm")
    for option, value in own.items():
        whole.config = ModelConfig(depth=2, **{option: value})
        plain = ModelConfig.__dataclass_fields__[option].default
        refused(lambda: whole.to(library), f"model.{option}={value}", f"--config.model.{option}={plain}")
    refused(
        lambda: Whole("lstm", peepholes=True).to(library), "layer 0", "peepholes=True", "set peepholes=False"
    )
    refused(lambda: Whole("mingru").to(library), "no MinGRU in", "there: RNN, LSTM, GRU")
    if library != "keras":
        refused(lambda: Whole("gru-before").to(library), "set reset_after=True")
    if library != "torch":
        refused(lambda: Whole("sru").to(library), "no SRU in", "to_torch")
    if library == "flax_nnx":
        refused(lambda: Whole("gru").to(library), "no c_n", "flax.linen, torch.nn and Keras have it")


def test_two_directions_of_an_sru_are_refused_with_what_the_package_has_otherwise():
    refused(lambda: Whole("sru", 2, True).to("torch"), "another highway", "set highway=False")
    refused(
        lambda: Whole("sru", 2, True, highway=False, projection=2).to("torch"),
        "another projection", "set projection=0",
    )  # fmt: skip


def test_a_state_that_does_not_fit_is_refused_by_name():
    whole = Whole("lstm", inputs="tokens")
    state = whole.to("torch")

    def changed(**changes):
        new = {key: value for key, value in (state | changes).items() if value is not None}
        return lambda: whole.back("torch", new)

    refused(changed(**{"rnn.bias_hh_l1": None}), "layer 1", "'bias_hh_l1' is missing")
    refused(changed(**{"rnn.weight_hr_l0": np.ones((2, 4))}), "layer 0", "'weight_hr_l0'", "no such name")
    refused(changed(**{"rnn.weight_ih_l3": np.ones((2, 4))}), "'weight_ih_l3' belongs to none")
    refused(changed(**{"head.bias": None}), "head must have weight, bias")
    refused(changed(**{"tail.weight": np.ones(2)}), "the state has 'tail'")
    refused(
        changed(**{"embed.weight": np.ones((6, 3))}), "layer 0: weights do not fit", "(4, 4), expected (3, 4)"
    )
    refused(changed(**{"head.weight": np.ones((2, 5))}), "head takes 5 numbers, the last layer gives 4")
    refused(changed(**{"head.bias": np.ones(3)}), "head does not fit")
    refused(lambda: whole.back("torch", {"head.bias": 1}), "the state has no 'rnn'")
    one = {key: value for key, value in state.items() if "_l1" not in key}
    refused(lambda: whole.back("torch", one), "1 layers: set model.depth=1")
    both = Whole("lstm", 2, True, "tokens")
    refused(lambda: whole.back("torch", both.to("torch")), "2 directions: set model.bidirectional=True")
    refused(lambda: whole.back("keras", whole.to("keras")[:-2]), "7 weights do not fit", "model.depth")
    refused(lambda: whole.back("flax_nnx", 3), "nnx module, got int")
    wrong = {**whole.to("flax_linen"), "layers_1": {"cel": {}}}
    refused(
        lambda: whole.back("flax_linen", wrong), "must have cell, or forward_rnn and backward_rnn, got cel"
    )
    refused(lambda: cells.stacks.to_torch(whole.cell, []), "no layer")
    refused(lambda: cells.stacks.to_torch(whole.cell, {"0": {}, "2": {}}), "numbered from 0, got 0, 2")
    assert jnp.asarray(whole.back("torch", state)["head"]["bias"]).dtype == np.float32
