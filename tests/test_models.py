"""Networks: shapes, and the parameter counts of the papers' own code."""

import pytest
import torch

from nlcourse.models import NETWORKS, mlp, nine_layer_cnn


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_network_maps_images_to_logits(name, shape):
    network = NETWORKS[name](shape, 7)
    assert network(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", ["mlp", "small-cnn"])
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
