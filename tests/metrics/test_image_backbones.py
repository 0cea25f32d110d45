"""Feature networks: refused, preprocessed and pooled as their cards say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_tables import features, on_phantom, pictures

from medbench.errors import WeightsError
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.metrics import backbones, image_frechet, image_kernel


def test_without_weights_a_backbone_is_absent_and_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(backbones.VARIABLE, raising=False)
    images = pictures(0, 3, 32)
    table = ImagePredictions(images, images)
    for name, how in (("xrv", "torchxrayvision"), ("inception", "pytorch-fid")):
        for kind, module in (("fid", image_frechet), ("kid", image_kernel)):
            found = getattr(module, f"{kind}_{name}")(table, np.ones((3, 6)))
            assert np.isnan(found.value).all()
            assert found.reason is not None
            assert f"MEDBENCH_BACKBONE='{name}=PATH'" in found.reason
            assert how in found.reason
    found = image_kernel.kid_phantom(table, np.ones((3, 6)))
    assert found.reason == "there are no features of the phantom backbone: they come from a run"
    lacking = image_frechet.fid_xrv(on_phantom(*features(0, 3, 3, 2)), np.ones((3, 6)))
    assert lacking.reason == "there are neither xrv features nor pixels"


def seasoned(module: Any) -> Any:
    """A random network that looks trained: its batch statistics have moved."""
    import torch

    torch.manual_seed(0)
    for buffer_name, buffer in module.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        if buffer_name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return module.eval()


@pytest.fixture(scope="module")
def densenet() -> Any:
    from torchxrayvision.models import DenseNet

    return seasoned(DenseNet(weights=None))


@pytest.fixture(scope="module")
def inception() -> Any:
    """The network of FID with random weights, small enough in output to be quick."""
    from torchvision.models import inception_v3

    return seasoned(
        inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    )


def test_xrv_features_are_those_of_torchxrayvision(
    densenet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import torchxrayvision as xrv
    from safetensors.torch import save_file

    images = pictures(6, 4, 300, 260)
    table = ImagePredictions(images[:2], images[2:])
    state = {key: value.contiguous() for key, value in densenet.state_dict().items()}
    save_file(state, tmp_path / "xrv.safetensors")
    torch.save(state, tmp_path / "xrv.pth")
    monkeypatch.setenv(backbones.VARIABLE, f"inception=nowhere xrv={tmp_path / 'xrv.safetensors'}")
    found = backbones.table_features(table, "xrv")
    assert not isinstance(found, str)
    levels = xrv.utils.normalize(images[:2, 20:280].astype(np.float32), 255)
    with torch.no_grad():
        small = xrv.utils.fix_resolution(torch.tensor(levels)[:, None], 224, densenet)
        expected = densenet.features2(small).numpy()
    assert found.real.shape == (2, 1024)
    assert np.abs(found.real - expected).max() < 1e-4 * np.abs(expected).max()
    # computed once for the table, whichever metric asks
    assert backbones.table_features(table, "xrv") is found
    # the digest is of the tensors, not of the file
    again = backbones.load("xrv", tmp_path / "xrv.pth")
    assert found.note == f"features by xrv weights {again.digest[:12]}"
    assert image_kernel.kid_xrv(table, np.ones((2, 4))).reason == found.note


def test_given_features_come_before_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backbones.VARIABLE, "xrv=nowhere.safetensors")
    x, y = features(0, 6, 5, 3)
    found = backbones.table_features(on_phantom(x, y, backbone="xrv"), "xrv")
    assert not isinstance(found, str)
    assert found.real == pytest.approx(x)
    assert found.note is None


def test_a_network_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    import torch
    from torchxrayvision.models import DenseNet

    path = tmp_path / "fresh.pth"
    torch.save(DenseNet(weights=None).state_dict(), path)
    with pytest.raises(WeightsError, match="never trained"):
        backbones.load("xrv", path)


def test_weights_of_another_network_are_refused(
    densenet: Any, inception: Any, tmp_path: Path
) -> None:
    import torch

    torch.save(densenet.state_dict(), tmp_path / "xrv.pth")
    with pytest.raises(WeightsError, match="not of the inception backbone"):
        backbones.load("inception", tmp_path / "xrv.pth")
    torch.save(inception.state_dict(), tmp_path / "fid.pth")
    with pytest.raises(WeightsError, match="they have 1,008 outputs, not 1,000"):
        backbones.load("inception-torchvision", tmp_path / "fid.pth")
    with pytest.raises(WeightsError, match="There are no weights at"):
        backbones.load("xrv", tmp_path / "missing.pth")
    partial = dict(list(densenet.state_dict().items())[:-9])
    torch.save({**partial, "classifier.weight": torch.zeros(18, 1024)}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match="tensors are missing"):
        backbones.load("xrv", tmp_path / "part.pth")


def test_weights_that_need_code_are_refused(densenet: Any, tmp_path: Path) -> None:
    import torch

    torch.save(densenet, tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match="not unpickled"):
        backbones.load("xrv", tmp_path / "whole.pt")


def test_pooling_of_the_fid_network() -> None:
    import torch
    from torch.nn.functional import avg_pool2d, max_pool2d, relu
    from torchvision.models.inception import InceptionA, InceptionE

    torch.manual_seed(0)
    x = relu(torch.randn(2, 16, 7, 9))
    block = InceptionA(16, 8).eval()
    seen: list[Any] = []
    block.branch_pool.register_forward_pre_hook(backbones.unpadded_average)
    block.branch_pool.conv.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        block(x)
        expected = avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        assert torch.allclose(seen[0], expected, atol=1e-6)
        other = InceptionE(16).eval()
        backbones.maximum_pooling(other)
        other.branch_pool.conv.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        for _ in range(2):
            other(x)
            assert torch.equal(seen[-1], max_pool2d(x, 3, stride=1, padding=1))


def test_inception_features_see_scaled_pixels_and_fid_pooling(
    inception: Any, tmp_path: Path
) -> None:
    import torch

    path = tmp_path / "fid.pth"
    # old files carry no counters of batches
    state = inception.state_dict()
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    network = backbones.load("inception", path)
    images = pictures(7, 2, 150, 120)
    prepared = network.prepare(torch.tensor(images))
    assert prepared.shape == (2, 3, 299, 299)
    assert torch.equal(prepared[:, 0], prepared[:, 2])
    assert -1 <= float(prepared.min()) < float(prepared.max()) <= 1
    found = backbones.extract(network, images)
    assert found.shape == (2, 2048)
    assert found.dtype == np.float64
    with torch.no_grad():
        kept = inception.fc
        inception.fc = torch.nn.Identity()
        plain = inception(prepared).numpy()
        inception.fc = kept
    # torchvision's own pooling gives other features
    assert np.abs(found - plain).max() > 1e-3 * np.abs(plain).max()
    assert np.corrcoef(found[0], plain[0])[0, 1] > 0.5


def test_features_of_unequal_width_are_an_error() -> None:
    table = on_phantom(np.zeros((4, 3)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="have 3 dimensions, those of generated ones 2"):
        image_kernel.kid_phantom(table, np.ones((2, 8)))


def test_weights_of_another_number_of_images_are_an_error() -> None:
    table = on_phantom(*features(0, 4, 5, 2))
    for metric in (image_kernel.kid_phantom, image_frechet.fid_phantom):
        with pytest.raises(ValueError, match="for 9 images"):
            metric(table, np.ones((2, 8)))
