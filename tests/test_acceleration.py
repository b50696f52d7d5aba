"""Layout, short numbers and compiling: networks get faster, and a method does not notice."""

import copy
import functools
import pickle

import pytest
import torch
from torch import nn

from nlcourse import datasets, noise
from nlcourse.methods import ELR, CrossEntropy
from nlcourse.training import Options, acceleration, fit
from nlcourse.training.acceleration import accelerate, fastest_precision, fused
from nlcourse.training.networks import mlp, small_cnn

SHAPE = (3, 12, 12)
small = functools.partial(small_cnn, width=8)


@pytest.fixture
def images():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return small(SHAPE, 4)


@pytest.fixture(scope="module")
def colourful():
    """120 images with 4 classes that differ in colour, 25 % of the labels wrong."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 4
    images = torch.randint(60, (120, 3, 12, 12), generator=generator, dtype=torch.uint8)
    for number in range(3):
        images[labels == number, number] += 120
    clean = datasets.Dataset(
        "colours", images, labels, labels, images[:40], labels[:40], tuple("0123"),
        (0.3,) * 3, (0.2,) * 3,
    )  # fmt: skip
    return noise.inject(clean, "symmetric", 0.25)


class Spy(nn.Module):
    """Notes the dtype that a multiplication gives."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 12 * 12, 4)
        self.seen = []

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        self.seen.append(logits.dtype)
        return logits


QUIET = {"network": small, "progress": False, "device": "cpu"}


@pytest.mark.parametrize("precision", acceleration.PRECISIONS)
def test_a_network_multiplies_as_told_and_returns_float32(precision, images):
    spy = accelerate(Spy(), "cpu", precision)
    logits = spy(images)
    assert spy.seen == [getattr(torch, precision)]
    assert logits.dtype == torch.float32
    assert spy.precision == precision
    logits.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in spy.parameters())
    assert not torch.is_autocast_enabled("cpu")  # outside of the network nothing is short


def test_the_layout_changes_no_value_and_no_name(network, images):
    plain = copy.deepcopy(network)
    fast = accelerate(network, "cpu")
    assert fast.state_dict().keys() == plain.state_dict().keys()
    assert fast[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(fast(images), plain(images))


@pytest.mark.parametrize("precision", acceleration.PRECISIONS)
def test_the_gradient_of_the_average_is_laid_out_as_its_neighbours(network, images, precision):
    plain = copy.deepcopy(network).to(memory_format=torch.channels_last)
    fast = accelerate(network, "cpu", precision)
    arriving = {}
    for each in (plain, fast):
        relu = next(layer for layer in list(each)[::-1] if isinstance(layer, nn.ReLU))
        relu.register_full_backward_hook(
            lambda _, inputs, outputs, each=each: arriving.update({each: outputs[0]})
        )
        each(images).square().sum().backward()
    assert not arriving[plain].is_contiguous(memory_format=torch.channels_last)  # else: no need
    assert arriving[fast].is_contiguous(memory_format=torch.channels_last)
    if precision == "float32":
        for expected, weight in zip(plain.parameters(), fast.parameters(), strict=True):
            torch.testing.assert_close(weight.grad, expected.grad)


def test_short_numbers_give_nearly_the_same_logits_and_gradients(network, images):
    plain = copy.deepcopy(network)
    fast = accelerate(network, "cpu", "bfloat16")
    labels = torch.arange(6) % 4
    results = []
    for each in (plain, fast):
        logits = each(images)
        nn.functional.cross_entropy(logits, labels).backward()
        results.append((logits, torch.cat([p.grad.flatten() for p in each.parameters()])))
    (exact, gradient), (short, short_gradient) = results
    torch.testing.assert_close(short, exact, atol=0.03, rtol=0.03)
    assert not torch.equal(short, exact)
    assert nn.functional.cosine_similarity(gradient, short_gradient, dim=0) > 0.95


def test_an_error_inside_leaves_nothing_switched_on(network, images):
    fast = accelerate(network, "cpu", "bfloat16")
    with pytest.raises(RuntimeError):
        fast(images[:, :2])
    assert not torch.is_autocast_enabled("cpu")
    assert fast(images).dtype == torch.float32


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_is_as_fast_and_is_its_own(network, images, again):
    fast = accelerate(network, "cpu", "bfloat16").eval()
    other = again(fast)
    assert torch.equal(other(images), fast(images))
    with torch.no_grad():
        other[-1].bias += 1
    assert not torch.equal(other(images), fast(images))


def test_an_unknown_precision_is_refused_in_words(network, colourful):
    with pytest.raises(ValueError, match="float32, bfloat16, got 'float16'"):
        accelerate(network, "cpu", "float16")
    with pytest.raises(ValueError, match="float32, bfloat16, got 'half'"):
        fit(
            CrossEntropy(),
            colourful,
            network=small,
            progress=False,
            options=Options(precision="half"),
        )


@pytest.mark.parametrize("able", [True, False])
def test_where_short_numbers_pay(monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able}, raising=False)
    photographs, digits = torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 8, 8)
    of_convolutions = fastest_precision(small(SHAPE, 4), photographs, "cpu")
    assert of_convolutions == ("bfloat16" if able else "float32")
    assert fastest_precision(small((1, 8, 8), 4), digits, "cpu") == "float32"
    assert fastest_precision(mlp((3, 32, 32), 4), photographs, "cpu") == "float32"
    assert fastest_precision(mlp((1, 8, 8), 4), digits, "cuda") == "bfloat16"
    assert fastest_precision(small(SHAPE, 4), photographs, "mps") == "float32"


def test_a_torch_that_does_not_tell_gets_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert fastest_precision(small(SHAPE, 4), torch.zeros(1, 3, 32, 32), "cpu") == "float32"


@pytest.mark.parametrize("precision", acceleration.PRECISIONS)
def test_a_run_says_its_precision_and_learns_in_it(colourful, precision):
    method = CrossEntropy()
    chosen = Options(precision=precision, batch_size=20)
    history = fit(method, colourful, epochs=8, options=chosen, **QUIET)
    assert history.settings["precision"] == precision == method.network.precision
    assert history.best() == 1.0  # colours are easy in either


def test_a_checkpoint_of_another_precision_is_refused(colourful, tmp_path):
    def run(precision):
        options = Options(precision=precision, checkpoint=tmp_path / "run.pt")
        fit(CrossEntropy(), colourful, epochs=1, options=options, **QUIET)

    run("bfloat16")
    with pytest.raises(ValueError, match="its precision is bfloat16, this run's is float32"):
        run("float32")


def test_a_run_in_short_numbers_goes_on_from_its_checkpoint(colourful, tmp_path):
    kept = Options(precision="bfloat16", checkpoint=tmp_path / "run.pt")
    fit(ELR(), colourful, epochs=1, options=kept, **QUIET)
    resumed = fit(ELR(), colourful, epochs=3, options=kept, **QUIET)
    whole = fit(ELR(), colourful, epochs=3, options=Options(precision="bfloat16"), **QUIET)
    assert resumed["train_loss"] == whole["train_loss"]


def test_optimizers_are_fused_on_cuda_alone():
    weight = nn.Parameter(torch.ones(3))
    for make in (torch.optim.SGD, torch.optim.Adam):
        there = fused(make([weight], lr=0.1), torch.device("cuda"))
        assert [group["fused"] for group in there.param_groups] == [True]
        here = fused(make([weight], lr=0.1), torch.device("cpu"))
        assert not here.param_groups[0]["fused"]
    lbfgs = torch.optim.LBFGS([weight])
    assert fused(lbfgs, torch.device("cuda")) is lbfgs
    adagrad = fused(torch.optim.Adagrad([weight]), torch.device("cuda"))  # no kernel on CUDA
    assert not adagrad.param_groups[0]["fused"]


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_a_fused_optimizer_takes_the_same_steps(make):
    def steps(device):
        weight = nn.Parameter(torch.linspace(-1, 1, 20))
        # The kernels exist on the processor as well: the switch is what is tested.
        optimizer = fused(make([weight], lr=0.1), torch.device(device))
        for _ in range(5):
            optimizer.zero_grad()
            weight.pow(4).sum().backward()
            optimizer.step()
        return weight.detach()

    torch.testing.assert_close(steps("cuda"), steps("cpu"))


@pytest.mark.parametrize(
    ("precision", "mode"), [("float32", "reduce-overhead"), ("bfloat16", True)]
)
def test_a_compiled_network_computes_the_same(network, images, precision, mode):
    plain = accelerate(copy.deepcopy(network), "cpu", precision).eval()
    compiled = accelerate(network, "cpu", precision, compiled=mode).eval()
    torch.testing.assert_close(compiled(images), plain(images), atol=0.03, rtol=0.03)
    assert compiled(images).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
    assert torch.equal(copy.deepcopy(compiled)(images), plain(images))  # a copy is not compiled


def test_fit_compiles_on_cuda_alone(colourful):
    options = {"network": small, "epochs": 1, "progress": False, "device": "cpu"}
    method = CrossEntropy()
    fit(method, colourful, **options, options=Options(compiled=True))
    assert method.network._compiled_call_impl is None


@pytest.mark.gpu
@pytest.mark.parametrize("mode", [True, "reduce-overhead"])
def test_a_compiled_network_learns_as_well(colourful, mode):
    options = {
        "network": small,
        "epochs": 8,
        "progress": False,
        "device": "cuda",
        "options": Options(batch_size=20),
    }
    plain = fit(CrossEntropy(), colourful, **options)
    compiled = fit(CrossEntropy(), colourful, **options, options=Options(compiled=mode))
    assert compiled.settings["precision"] == "bfloat16"
    assert abs(plain.best() - compiled.best()) < 0.1
