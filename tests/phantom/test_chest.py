"""Annotated radiographs: each finding changes the image where it should and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from medbench.data.samples import Box
from medbench.phantom.chest import FINDINGS, UNCERTAIN, Chest, expected, render
from medbench.phantom.scanner import PAIRS_XRAY, XRAY_UNITS, XRayUnit

SIZE = 128
#: No scatter: it spreads every change by a centimetre or two.
PLAIN = replace(XRAY_UNITS["iu-xray"], scatter=0.0, sharpness=0.0)
#: Findings that are bound to one side by ``sides``.
SIDED = (
    "consolidation", "effusion", "infiltration", "lung-lesion", "lung-opacity", "mass", "nodule",
    "pleural-other", "pleural-thickening", "pneumonia", "pneumothorax", "fracture",
)  # fmt: skip
BOXED = (
    "atelectasis", "consolidation", "effusion", "infiltration", "lung-opacity", "mass", "nodule",
    "pneumonia", "pneumothorax",
)  # fmt: skip

Image = npt.NDArray[np.float32]


def chest(number: int = 0, **rest: object) -> Chest:
    return Chest(f"patient-{number}", f"image-{number}", **rest)  # type: ignore[arg-type]


def changes(numbers: range, unit: XRayUnit = PLAIN, **rest: object) -> Image:
    """What findings change in noise-free images [N, SIZE, SIZE]."""
    sick = [chest(number, **rest) for number in numbers]
    well = [chest(number, view=rest.get("view", "frontal")) for number in numbers]
    images = expected("test", [*sick, *well], SIZE, unit)
    return np.subtract(images[: len(sick)], images[len(sick) :])


def change(number: int, **rest: object) -> Image:
    """What findings change in one noise-free image."""
    found: Image = changes(range(number, number + 1), **rest)[0]  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("view", ["frontal", "lateral"])
@pytest.mark.parametrize("name", FINDINGS)
def test_every_finding_shows(name: str, view: str) -> None:
    assert np.abs(changes(range(3), findings={name: 1.0}, view=view)).max() > 0.04


@pytest.mark.parametrize("name", FINDINGS)
def test_an_uncertain_finding_is_fainter_than_a_sure_one(name: str) -> None:
    faint, sure = (
        float(np.abs(changes(range(3), findings={name: level})).sum()) for level in (UNCERTAIN, 1.0)
    )
    assert 0 < faint < 0.85 * sure


@pytest.mark.parametrize("name", SIDED)
def test_a_finding_keeps_to_its_side(name: str) -> None:
    for side in ("left", "right"):
        changed = np.abs(changes(range(3), findings={name: 1.0}, sides={name: side}))
        half = slice(0, SIZE // 2 - 16) if side == "left" else slice(SIZE // 2 + 16, None)
        assert changed[:, :, half].max() < 1e-4
        assert changed.max((1, 2)).min() > 0.015


@pytest.mark.parametrize("name", BOXED)
@pytest.mark.parametrize(
    "place", [(0.16, 0.3, 0.2, 0.2), (0.6, 0.5, 0.25, 0.15), (0.42, 0.75, 0.16, 0.2)]
)
def test_a_box_holds_its_finding_even_outside_the_lung(
    name: str, place: tuple[float, float, float, float]
) -> None:
    box = Box(name, *place)
    changed = np.abs(change(1, findings={name: 1.0}, boxes=(box,)))
    x, y, width, height = (round(v * SIZE) for v in place)
    inside = np.zeros((SIZE, SIZE), bool)
    inside[y - 1 : y + height + 1, x - 1 : x + width + 1] = True
    assert changed[~inside].max() < 0.01
    assert changed[inside].max() > 0.02


def test_a_heart_with_a_box_fills_its_box() -> None:
    box = Box("cardiomegaly", 0.28, 0.42, 0.5, 0.3)
    image = expected("test", [chest(2, findings={"cardiomegaly": 1.0}, boxes=(box,))], SIZE, PLAIN)
    row = image[0, round(0.57 * SIZE)]
    lung = row[[round(0.2 * SIZE), round(0.86 * SIZE)]].max()
    heart = row[round(0.34 * SIZE) : round(0.7 * SIZE)].min()
    assert heart > lung + 0.1


def test_a_box_takes_the_place_of_the_drawn_position() -> None:
    box = Box("pneumonia", 0.15, 0.3, 0.2, 0.2)
    one = change(3, findings={"pneumonia": 1.0}, boxes=(box,))
    silent = change(3, boxes=(box,))
    assert np.array_equal(one, silent)


@pytest.mark.parametrize("shape", [(256, 256), (100, 180)])
def test_free_air_lies_within_the_mask(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, bool)
    rows, columns = shape
    mask[rows // 8 : rows // 3, columns // 8 : columns // 4] = True
    changed = change(4, findings={"pneumothorax": 1.0}, mask=mask)
    y, x = np.mgrid[:SIZE, :SIZE]
    near = (y >= SIZE // 8 - 3) & (y <= SIZE // 3 + 3) & (x >= SIZE // 8 - 3) & (x <= SIZE // 4 + 3)
    assert np.abs(changed[~near]).max() < 0.005
    core = changed[SIZE // 8 + 4 : SIZE // 3 - 4, SIZE // 8 + 4 : SIZE // 4 - 4]
    assert core.mean() < -0.01
    assert changed.max() > 0.01  # the pleural line


def test_free_air_has_no_vessels() -> None:
    mask = np.ones((64, 64), bool)
    air = expected("test", [chest(5, findings={"pneumothorax": 1.0}, mask=mask)], SIZE, PLAIN)[0]
    lung = expected("test", [chest(5)], SIZE, PLAIN)[0]

    def detail(image: Image) -> float:
        part = image[40:80, 18:45]
        return float(np.abs(part[:, 2:] - 2 * part[:, 1:-1] + part[:, :-2]).mean())

    assert detail(air) < 0.8 * detail(lung)


def test_a_large_heart_is_wide_and_an_emphysematous_chest_dark() -> None:
    assert change(6, findings={"cardiomegaly": 1.0}).sum() > 0
    assert change(6, findings={"emphysema": 1.0})[40:90].sum() < 0
    assert change(6, findings={"effusion": 1.0})[80:].sum() > 0


def test_lateral_images_show_the_studys_findings_too() -> None:
    both = [
        Chest("p", f"i{k}", study="s", view=view, findings={"consolidation": 1.0})
        for k, view in enumerate(("frontal", "lateral"))
    ]
    images = render("test", both, SIZE, PLAIN)
    assert images.shape == (2, SIZE, SIZE)
    assert np.abs(images[0].astype(int) - images[1]).mean() > 10


def test_a_patient_has_the_same_body_in_every_image() -> None:
    """Two images of one patient differ by position; two patients by body as well."""

    def unmoved(patient: str, image: str) -> torch.Tensor:
        from medbench.phantom.chest_plan import plan

        scene = plan("test", [Chest(patient, image, study=image)], PLAIN)
        return torch.cat([scene.patients.cage[0], scene.patients.targets[0].flatten()])

    assert torch.equal(unmoved("a", "1"), unmoved("a", "2"))
    assert not torch.equal(unmoved("a", "1"), unmoved("b", "1"))


def test_images_of_a_study_agree_on_where_a_finding_is() -> None:
    from medbench.phantom.chest_plan import plan

    def centre(image: str, study: str) -> torch.Tensor:
        scene = plan("test", [Chest("p", image, study=study, findings={"mass": 1.0})], PLAIN)
        return scene.blobs.centre[scene.blobs.height > 0.8]

    assert torch.equal(centre("1", "s"), centre("2", "s"))
    assert not torch.equal(centre("1", "s"), centre("1", "t"))


def test_age_and_sex_change_the_body() -> None:
    young, old, woman = expected(
        "test",
        [chest(7, age=25.0, female=False), chest(7, age=85.0, female=False),
         chest(7, age=25.0, female=True)],
        SIZE, PLAIN,
    )  # fmt: skip
    assert np.abs(young - old).max() > 0.05
    assert np.abs(young - woman).max() > 0.05


def test_order_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = [
        chest(i, view="lateral" if i % 3 == 2 else "frontal", findings={FINDINGS[i]: 1.0})
        for i in range(8)
    ]
    together = render("test", everyone, 64, XRAY_UNITS["siim-pneumothorax"])
    turned = render("test", everyone[::-1], 64, XRAY_UNITS["siim-pneumothorax"])[::-1]
    monkeypatch.setattr("medbench.phantom.chest._PIXELS_CPU", 3 * 64 * 64)
    apart = render("test", everyone, 64, XRAY_UNITS["siim-pneumothorax"])
    # Vector instructions may round the last bit of a float otherwise.
    assert np.abs(together.astype(int) - turned).max() <= 1
    assert np.abs(together.astype(int) - apart).max() <= 1


def test_rendering_is_deterministic_and_noise_is_the_images_own() -> None:
    once, twice = (render("test", [chest()], 64, PAIRS_XRAY) for _ in range(2))
    assert np.array_equal(once, twice)
    assert once.dtype == np.uint8
    noise = once / 255 - expected("test", [chest()], 64, PAIRS_XRAY)
    assert 0.002 < noise.std() < 0.1
    elsewhere = render("other", [chest()], 64, PAIRS_XRAY)
    assert not np.array_equal(once, elsewhere)


def test_units_are_distinct() -> None:
    looks = {name: render("test", [chest()], 64, unit)[0] for name, unit in XRAY_UNITS.items()}
    names = list(looks)
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            assert np.abs(looks[first].astype(int) - looks[second]).mean() > 1.5


@pytest.mark.parametrize("size", [64, 97, 224, 390])
def test_any_size_can_be_drawn(size: int) -> None:
    image = render("test", [chest(findings={"support-devices": 1.0})], size, PAIRS_XRAY)
    assert image.shape == (1, size, size)
    assert image.std() > 20


def test_the_same_chest_looks_alike_at_any_size() -> None:
    some = [chest(8, findings={"effusion": 1.0})]
    small, large = (torch.from_numpy(expected("test", some, n, PLAIN)) for n in (96, 384))
    pooled = torch.nn.functional.avg_pool2d(large, 4)
    assert float((small - pooled).abs().mean()) < 0.02


def test_an_unknown_finding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image-0.*flu.*Known: atelectasis"):
        render("test", [chest(findings={"flu": 1.0})], 64, PAIRS_XRAY)


def test_no_chests_give_no_images() -> None:
    assert render("test", [], 64, PAIRS_XRAY).shape == (0, 64, 64)


def test_the_device_is_used() -> None:
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)):
        render("test", [chest()], 64, PAIRS_XRAY, "no-such-device")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same() -> None:
    everyone = [chest(i, findings={name: 1.0}) for i, name in enumerate(FINDINGS)]
    here, there = (render("test", everyone, 128, PAIRS_XRAY, d) for d in ("cpu", "cuda"))
    assert np.abs(here.astype(int) - there).max() <= 2
