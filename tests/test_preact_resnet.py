"""PreAct ResNet-18: parameter counts of the papers' own code, and what the identity path does."""

import pytest
import torch

from nlcourse.training.preact_resnet import PreActBlock, preact_resnet18


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("classes", "expected"), [(10, 11_171_274), (100, 11_217_444)])
def test_the_size_of_the_published_code(legacy, classes, expected):
    assert count(preact_resnet18((3, 32, 32), classes, legacy_shortcut=legacy)) == expected


def test_the_size_with_the_papers_ends():
    assert count(preact_resnet18((3, 32, 32), 10, final_norm=True)) == 11_172_170


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_it_maps_images_to_logits(shape, final_norm):
    network = preact_resnet18(shape, 7, final_norm=final_norm)
    assert network(torch.randn(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_a_block_without_a_second_convolution_returns(legacy):
    """With F(h) = 0 the true identity returns x itself, the legacy block ReLU(BN(x))."""
    block = PreActBlock(4, 4, 1, legacy).eval()
    with torch.no_grad():
        block.conv2.weight.zero_()
        block.norm1.running_mean.fill_(0.5)
    x = torch.randn(3, 4, 5, 5)
    by_hand = ((x - 0.5) / (1 + block.norm1.eps) ** 0.5).clamp(min=0)
    torch.testing.assert_close(block(x), by_hand if legacy else x)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_block_that_changes_shape_projects_the_normed_input(legacy):
    block = PreActBlock(4, 8, 2, legacy).eval()
    with torch.no_grad():
        block.conv2.weight.zero_()
    x = torch.randn(3, 4, 6, 6)
    h = (x / (1 + block.norm1.eps) ** 0.5).clamp(min=0)
    weights = block.project.weight[:, :, 0, 0]
    by_hand = torch.einsum("oc,nchw->nohw", weights, h[:, :, ::2, ::2])
    torch.testing.assert_close(block(x), by_hand)


def test_the_two_shortcuts_are_different_networks_of_one_shape():
    networks = []
    for legacy in (False, True):
        torch.manual_seed(0)
        networks.append(preact_resnet18((3, 16, 16), 5, legacy_shortcut=legacy))
    one, other = (network.state_dict() for network in networks)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    images = torch.randn(4, 3, 16, 16)
    assert (networks[0](images) - networks[1](images)).abs().max() > 0.01
