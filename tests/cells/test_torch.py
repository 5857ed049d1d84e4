"""Against torch.nn and the SRU authors' own package: values and gradients in float64 (needs torch; sru).

QRNN, TCN and window against torch's convolutions.
"""

import functools
import warnings

import jax
import numpy as np
import pytest

import cells

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("x64")
D, H, LENGTHS = 2, 3, np.array([6, 1, 4, 6])

MODULES = {
    "rnn": ("rnn", {}, lambda **k: torch.nn.RNN(D, H, batch_first=True, **k)),
    "rnn-relu": (
        "rnn",
        {"activation": "relu"},
        lambda **k: torch.nn.RNN(D, H, nonlinearity="relu", batch_first=True, **k),
    ),
    "lstm": ("lstm", {}, lambda **k: torch.nn.LSTM(D, H, batch_first=True, **k)),
    "gru": ("gru", {"reset_after": True}, lambda **k: torch.nn.GRU(D, H, batch_first=True, **k)),
}
NAMES = pytest.mark.parametrize("name", MODULES)


def tensor(x, grad=False):
    return torch.tensor(np.asarray(x), requires_grad=grad)


def load(module, *states):
    """Loads one state, or one for each direction, strictly."""
    state = {name + end: v for s, end in zip(states, ("", "_reverse"), strict=False) for name, v in s.items()}
    module.double().load_state_dict({name: torch.from_numpy(v) for name, v in state.items()}, strict=True)
    return module


def gradients(cell, module):
    """The gradients of torch's parameters, as those of ours. Torch's two biases share one gradient."""
    grads = {name: p.grad.numpy().copy() for name, p in module.named_parameters()}
    if "bias_hh_l0" in grads:
        shared = slice(2 * H if isinstance(cell, cells.CELLS.cls("gru")) else None)
        np.testing.assert_allclose(grads["bias_ih_l0"][shared], grads["bias_hh_l0"][shared], rtol=1e-12)
        grads["bias_hh_l0"][shared] = 0
    return cells.from_torch(cell, grads)


@NAMES
def test_torch_values_and_gradients(laws, name):
    ours, options, module = MODULES[name]
    cell = cells.get(ours, hidden_size=H, **options)
    p = laws.problem(cell, (4, 6, D), flags=False)
    theirs = load(module(), cells.to_torch(cell, p.params))
    xs, start = tensor(p.xs, True), [tensor(c, True) for c in jax.tree.leaves(p.carry)]
    first = [c[None] for c in start]  # ours: c, h; torch: h, c
    ys, final = theirs(xs, tuple(first[::-1]) if ours == "lstm" else first[0])
    final = [c[0] for c in final][::-1] if ours == "lstm" else [final[0]]
    leaves = [*final, ys]
    loss = sum((x + rows(x)).sin().sum() for x in leaves)
    loss.backward()
    got = laws.runner(cell, "sequential")(p)
    laws.same([*jax.tree.leaves(got.carry), got.ys], [x.detach().numpy() for x in leaves])
    laws.same(got.gradients[0], gradients(cell, theirs))
    laws.same([got.gradients[1], *jax.tree.leaves(got.gradients[2])], [x.grad.numpy() for x in (xs, *start)])


def rows(x):
    """As in the loss of the laws: rows and units told apart."""
    return torch.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1)) + torch.arange(x.shape[-1])


@NAMES
def test_torch_bidirectional_packed(laws, name):
    """Each direction runs inside each row's length; also the gradients of both directions."""
    ours, options, module = MODULES[name]
    cell = cells.get(ours, hidden_size=H, **options)
    problems = [laws.problem(cell, (4, 6, D), seed, flags=False) for seed in (0, 1)]
    xs = problems[0].xs
    problems = [
        p._replace(xs=xs, lengths=LENGTHS, carry=jax.tree.map(np.zeros_like, p.carry)) for p in problems
    ]
    theirs = load(module(bidirectional=True), *(cells.to_torch(cell, p.params) for p in problems))
    x = tensor(xs, True)
    pack = torch.nn.utils.rnn.pack_padded_sequence
    ys, final = theirs(pack(x, torch.from_numpy(LENGTHS), batch_first=True, enforce_sorted=False))
    ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, batch_first=True)
    final = final[::-1] if ours == "lstm" else (final,)
    # One loss for each direction, as the laws have it.
    directions = [[*(c[i] for c in final), ys[..., i * H : (i + 1) * H]] for i in range(2)]
    sum((v + rows(v)).sin().sum() for leaves in directions for v in leaves).backward()
    got = [
        laws.runner(cell, "sequential", reverse)(p)
        for reverse, p in zip((False, True), problems, strict=True)
    ]
    for result, leaves in zip(got, directions, strict=True):
        laws.same([*jax.tree.leaves(result.carry), result.ys], [v.detach().numpy() for v in leaves])
    laws.same(got[0].gradients[1] + got[1].gradients[1], x.grad.numpy())
    for result, end in zip(got, ("", "_reverse"), strict=True):
        one = module().double()
        for key, value in one.named_parameters():
            value.grad = dict(theirs.named_parameters())[key + end].grad
        laws.same(result.gradients[0], gradients(cell, one))


@NAMES
def test_weights_come_from_torch(laws, name):
    ours, options, module = MODULES[name]
    cell, theirs = cells.get(ours, hidden_size=H, **options), module().double()
    xs = np.random.default_rng(0).normal(size=(2, 5, D))
    _, ys = cells.scan(cell, cells.from_torch(cell, theirs.state_dict()), xs)
    laws.same(ys, theirs(tensor(xs))[0].detach().numpy())


# --- the SRU authors' package

SRUS = [
    ("sru_feedback", {}),
    ("sru_feedback", {"highway": False}),
    ("sru_feedback", {"rescale": False}),
    ("sru_feedback", {"highway_bias": -1.5}),
    ("sru", {}),
    ("sru", {"reset_feedback": True}),
    ("sru", {"highway": False, "reset_feedback": True}),
]


def sru_cell(cell, features):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for CUDA
        sru = pytest.importorskip("sru")
    options = dict(highway_bias=cell.highway_bias, rescale=cell.rescale, has_skip_term=cell.highway)
    return sru.SRUCell(features, cell.hidden_size, **options)


@pytest.mark.filterwarnings("ignore:Running SRU on CPU with grad_enabled")
@pytest.mark.parametrize("features", [2, H], ids=["projected", "square"])
@pytest.mark.parametrize("name, options", SRUS, ids=str)
def test_sru_values_and_gradients(laws, name, options, features):
    """Padding too: their mask_pad is our mask, turned around."""
    cell = cells.get(name, hidden_size=H, **options)
    p = laws.problem(cell, (4, 6, features))
    p = p._replace(resets=np.zeros_like(p.resets))
    theirs = load(sru_cell(cell, features), cells.to_torch(cell, p.params))
    xs, start = tensor(p.xs, True), tensor(p.carry, True)
    ys, final = theirs(xs.transpose(0, 1), start, mask_pad=tensor(~p.valid).T)
    ys = ys.transpose(0, 1)
    sum((x + rows(x)).sin().sum() for x in (final, ys)).backward()
    for name, value in theirs.named_parameters():
        if name == "weight_c":  # the gradient of a feedback that our cell does not have
            for i, gate in enumerate("fr"):
                value.grad[i * H : (i + 1) * H] *= gate in cell.feedback
    for strategy in ("sequential", "associative") if isinstance(cell, cells.Linear) else ("sequential",):
        got = laws.runner(cell, strategy)(p)
        laws.same((got.carry, got.ys), (final.detach().numpy(), ys.detach().numpy()))
        laws.same(got.gradients, (gradients(cell, theirs), xs.grad.numpy(), start.grad.numpy()))


@pytest.mark.parametrize("features", [200, 300], ids=["projected", "square"])
def test_sru_initialisation_has_the_authors_spreads(features):
    """Standard deviations of each projection and of the feedback weights, within 4%."""
    cell = cells.get("sru_feedback", hidden_size=300, highway_bias=-1.0)
    theirs = cells.from_torch(cell, sru_cell(cell, features).state_dict())
    ours = cell.init(jax.random.key(0), features, np.float32)
    assert theirs.keys() == ours.keys()
    for name, x in ours.items():
        np.testing.assert_allclose(np.std(x), np.std(theirs[name]), rtol=0.15 if x.ndim == 1 else 0.04)
        np.testing.assert_allclose(np.abs(x).max(), np.abs(theirs[name]).max(), rtol=0.05)


# --- convolutions


def convolve(xs, W, b, dilation=1):
    """torch's convolution of xs (batch, time, m), causal by padding on the left, with our W[lag] (m, k)."""
    xs = torch.nn.functional.pad(xs.transpose(1, 2), ((len(W) - 1) * dilation, 0))
    return torch.nn.functional.conv1d(xs, W.flip(0).permute(2, 1, 0), b, dilation=dilation).transpose(1, 2)


def torch_window(cell, p, xs):
    return torch.tanh(convolve(xs, p["W"], p["b"]))


def torch_tcn(cell, p, xs):
    """Bai's TemporalBlock (2018), without weight normalisation and dropout."""
    for level in range(cell.levels):
        y = xs
        for n in (2 * level, 2 * level + 1):
            y = torch.relu(convolve(y, p[f"W_{n}"], p[f"b_{n}"], 2**level))
        first = level == 0 and "W_x" in p  # a convolution over one input
        xs = torch.relu(y + (convolve(xs, p["W_x"][None], p["b_x"]) if first else xs))
    return xs


def torch_qrnn(cell, p, xs):
    a = {k[2]: convolve(xs, W, p["b" + k[1:]]) for k, W in p.items() if k[0] == "W"}
    f, z, c, ys = torch.sigmoid(a["f"]), torch.tanh(a["z"]), 0.0, []
    i = torch.sigmoid(a["i"]) if "i" in a else 1 - f
    for t in range(xs.shape[1]):
        c = f[:, t] * c + i[:, t] * z[:, t]
        ys.append(c)
    return torch.stack(ys, 1) * (torch.sigmoid(a["o"]) if "o" in a else 1)


@pytest.mark.parametrize("features", [2, H], ids=["projected", "square"])
@pytest.mark.parametrize(
    "name, options, theirs",
    [
        ("window", {}, torch_window),
        ("tcn", {}, torch_tcn),
        ("tcn", {"levels": 2, "kernel": 2}, torch_tcn),
        ("qrnn", {}, torch_qrnn),
        ("qrnn", {"window": 4, "pooling": "ifo"}, torch_qrnn),
    ],
    ids=str,
)
def test_convolutions_values_and_gradients(laws, name, options, theirs, features):
    """Of a whole sequence from zeros: one convolution in torch, a carry and a step here."""
    cell = cells.get(name, hidden_size=H, **options)
    p = laws.problem(cell, (4, 20, features), flags=False)
    p = p._replace(carry=jax.tree.map(np.zeros_like, p.carry))
    params, xs = {k: tensor(v, True) for k, v in p.params.items()}, tensor(p.xs, True)
    ys = theirs(cell, params, xs)
    (ys**2).sum().backward()

    def loss(strategy, params, xs):
        ys = cells.scan(cell, params, xs, p.carry, strategy=strategy)[1]
        return (ys**2).sum(), ys

    for strategy in cells.strategies(cell)[:2]:
        run = laws.jit(jax.grad(functools.partial(loss, strategy), (0, 1), has_aux=True))
        gradients, got = run(p.params, p.xs)
        laws.same(got, ys.detach().numpy())
        laws.same(gradients, ({k: v.grad.numpy() for k, v in params.items()}, xs.grad.numpy()), 1e-9)
