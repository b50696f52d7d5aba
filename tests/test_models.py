"""Networks: shapes, and the parameter counts of the papers' own code."""

import math

import pytest
import torch
import torchvision
from torch import nn

from nlcourse.datasets.files import DataError
from nlcourse.training import resnet
from nlcourse.training.networks import NETWORKS, lenet, mlp, nine_layer_cnn

SELF_MADE = [name for name in NETWORKS if name != "resnet50-imagenet"]  # that one needs a file


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", SELF_MADE)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_network_maps_images_to_logits(name, shape):
    network = NETWORKS[name](shape, 7)
    assert network(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", ["mlp", "small-cnn", "resnet18"])
def test_classroom_networks_take_digits(name):
    assert NETWORKS[name]((1, 8, 8), 10)(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize(
    ("shape", "classes", "expected"),
    [((1, 28, 28), 10, 4_432_266), ((3, 32, 32), 10, 4_434_570), ((3, 32, 32), 100, 4_446_180)],
)
def test_nine_layer_cnn_has_the_papers_size(shape, classes, expected):
    assert count(nine_layer_cnn(shape, classes)) == expected


def test_mlp_of_co_teaching_plus_has_its_size():
    assert count(mlp((1, 28, 28), 10, hidden=(256,))) == 203_530


def test_dropout_is_off_when_evaluating():
    network = nine_layer_cnn((1, 28, 28), 10).eval()
    images = torch.randn(4, 1, 28, 28)
    assert torch.equal(network(images), network(images))


def test_a_width_of_zero_is_refused():
    with pytest.raises(ValueError, match="at least 1 unit"):
        mlp((1, 8, 8), 10, hidden=(0,))


# ---------------------------------------------------------------- LeNet


def test_lenet_of_cdr_has_its_size():
    assert count(lenet((1, 28, 28), 10)) == 61_706


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 13, 21), (3, 64, 48)])
def test_lenet_takes_other_shapes(shape):
    assert lenet(shape, 5)(torch.zeros(2, *shape)).shape == (2, 5)


def test_lenet_refuses_images_that_vanish_on_the_way():
    with pytest.raises(ValueError, match="at least 12 x 12 for LeNet, got 8 x 8"):
        lenet((1, 8, 8), 10)


# ---------------------------------------------------------------- residual networks


@pytest.mark.parametrize(
    ("name", "shape", "classes", "expected"),
    [
        ("resnet34", (3, 32, 32), 10, 21_282_122),
        ("resnet34", (3, 32, 32), 100, 21_328_292),
        ("resnet50", (3, 32, 32), 10, 23_520_842),
        ("resnet50", (3, 32, 32), 100, 23_705_252),
        ("resnet50", (1, 28, 28), 10, 23_519_690),
        # T-Revision's ResNet-18 carries a 10 x 10 slack matrix besides.
        ("resnet18", (3, 32, 32), 10, 11_174_062 - 100),
    ],
)
def test_residual_networks_have_the_papers_sizes(name, shape, classes, expected):
    assert count(NETWORKS[name](shape, classes)) == expected


@pytest.mark.parametrize(("padding", "side"), [(1, 32), (0, 30)])
def test_the_stem_keeps_the_pixels_that_imagenet_s_would_skip(padding, side):
    network = resnet.resnet18_small((3, 32, 32), 10, stem_padding=padding)
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    assert stem(torch.zeros(1, 3, 32, 32)).shape == (1, 64, side, side)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_convolutions_start_from_torch_s_own_weights():
    """Uniform within 1 / sqrt(inputs), where torchvision's normal draws go beyond."""
    torch.manual_seed(0)
    for layer in resnet.resnet18_small((3, 32, 32), 10).modules():
        if isinstance(layer, nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            assert 0.9 * bound < layer.weight.abs().max() <= bound


@pytest.fixture
def weights_file(tmp_path, monkeypatch):
    """Where the weights belong, in an empty data folder, with a network that refuses."""

    def refuse(*_args, **_kwargs):
        raise OSError("no network in the tests")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setenv("NLCOURSE_DATA", str(tmp_path))
    folder = tmp_path / "weights"
    folder.mkdir()
    return folder / "resnet50-0676ba61.pth"


def test_imagenet_s_weights_are_taken_but_for_the_last_layer(weights_file):
    theirs = torchvision.models.resnet50(weights=None)
    torch.save(theirs.state_dict(), weights_file)
    network = NETWORKS["resnet50-imagenet"]((3, 64, 64), 14)
    assert count(network) == 23_508_032 + 14 * 2049
    ours = network.state_dict()
    for name, value in theirs.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(ours[name], value), name
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 14)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_missing_weights_say_where_to_put_the_file(weights_file):
    with pytest.raises(DataError) as caught:
        resnet.resnet50_imagenet((3, 32, 32), 5)
    message = str(caught.value)
    assert f"is not there and could not be fetched: {weights_file}" in message
    assert "no network in the tests" in message
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth" in message


@pytest.mark.parametrize("content", ["cut off", "another network"])
def test_damaged_weights_are_named(weights_file, content):
    if content == "cut off":
        weights_file.write_bytes(b"cut off")
    else:
        torch.save(lenet((1, 28, 28), 10).state_dict(), weights_file)
    with pytest.raises(DataError, match="is damaged: .*resnet50-0676ba61.pth"):
        resnet.resnet50_imagenet((3, 32, 32), 5)


def test_the_same_network_without_weights_needs_no_file(weights_file):
    assert count(resnet.resnet50_imagenet((3, 32, 32), 14, pretrained=False)) == 23_536_718


def test_imagenet_s_network_refuses_grey_images():
    with pytest.raises(ValueError, match="3 channels .* got 1"):
        NETWORKS["resnet50-imagenet"]((1, 28, 28), 10)
