"""LPIPS with a random trunk in torchvision's layout; the published heads where they are at hand."""

import pytest
import torch

from latent3d.evaluation.perceptual import lpips
from latent3d.nn.lpips import TRUNKS, prepared


@pytest.fixture
def files(tmp_path):
    """Function name -> (trunk file, heads file) with random weights in the published layout."""

    def write(name):
        torch.manual_seed(0)
        layers, taps = TRUNKS[name]()
        trunk, heads = tmp_path / f"{name}_trunk.pth", tmp_path / f"{name}.pth"
        state = {f"features.{key}": value for key, value in layers.state_dict().items()}
        torch.save(state | {"classifier.1.weight": torch.zeros(2)}, trunk)
        torch.save({f"lin{i}.model.1.weight": torch.ones(1, layers[t - 1].out_channels, 1, 1) for i, t in
                    enumerate(taps)}, heads)  # fmt: skip
        return trunk, heads

    return write


def test_known_answers_of_a_trunk(files):
    distance = lpips(*files("alex"))
    assert distance.name == "lpips_alex"
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert distance(images, images).tolist() == [0, 0]
    there, back = distance(images[:1], images[1:]), distance(images[1:], images[:1])
    torch.testing.assert_close(there, back)
    # Heads of ones: per tap the squared distance of unit vectors with non-negative entries, between 0 and 2.
    assert 0 < there.item() < 10
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    near, far = (distance(images, images + s * noise).mean() for s in (0.02, 0.3))
    assert 0 < near < far
    # By hand, the first tap alone.
    first = distance.trunk[:2]
    x, y = (first(prepared(part)) for part in (images[:1], images[1:]))
    cosine = torch.nn.functional.cosine_similarity(x, y, dim=1)
    alone = type(distance)("", ("", ""), first, (1,), distance.heads[:1])
    torch.testing.assert_close(alone(images[:1], images[1:]), (2 - 2 * cosine).mean((1, 2)), atol=1e-4, rtol=1e-4)


def test_the_published_heads_fit_their_trunks(files, shared_data):
    folder = shared_data("weights_lpips_linear") / "v0.1"
    for name in ("alex", "vgg"):
        trunk, _ = files(name)
        distance = lpips(trunk, folder / f"{name}.pth")
        assert distance.name == f"lpips_{name}"
        assert all(bool((weight >= 0).all()) for weight in distance.heads)
    with pytest.raises(ValueError, match="alex trunk"):
        lpips(files("alex")[0], folder / "vgg.pth")


def test_other_files_are_named(files, tmp_path):
    _, heads = files("alex")
    with pytest.raises(FileNotFoundError, match="local file"):
        lpips(tmp_path / "no.pth", heads)
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        lpips(tmp_path / "bad.pth", heads)
    with pytest.raises(ValueError, match="AlexNet or VGG16"):
        lpips(heads, heads)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="state dict"):
        lpips(tmp_path / "list.pth", heads)
