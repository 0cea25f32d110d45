"""Closed forms against numerical integration, and drawing inside bounding boxes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medbench.phantom import geometry
from medbench.phantom.draws import Draws
from medbench.phantom.patient import sample_patients
from medbench.phantom.radiograph import lung_frontal, lung_lateral
from medbench.phantom.tissue import Frame, column, member, organs

radius = st.floats(5, 60)
angle = st.floats(-3, 3)
offset = st.floats(-70, 70)


@given(a=radius, b=radius, c=radius, turn=angle, u=offset, v=offset, along=st.integers(0, 2))
def test_an_ellipsoids_chord_is_what_integration_finds(
    a: float, b: float, c: float, turn: float, u: float, v: float, along: int
) -> None:
    rotation = geometry.rotation_z(torch.tensor(turn)) @ geometry.rotation_y(torch.tensor(0.4))
    matrix = geometry.ellipsoid_matrix(torch.tensor([a, b, c]), rotation).double()
    first, second = (k for k in range(3) if k != along)
    start, end = geometry.quadric_interval(
        (torch.tensor([[u]]).double(), torch.tensor([[v]]).double()), matrix, (first, second, along)
    )
    t = torch.linspace(-80, 80, 16_001, dtype=torch.float64)
    point = torch.zeros(len(t), 3, dtype=torch.float64)
    point[:, first], point[:, second], point[:, along] = u, v, t
    inside = ((point @ matrix) * point).sum(1) <= 1
    assert float((end - start).item()) == pytest.approx(float(inside.sum()) * 0.01, abs=0.03)


@given(across=st.floats(-120, 120), a=st.floats(10, 100), b=st.floats(10, 100), n=st.floats(2, 4))
def test_a_superellipses_chord_is_what_integration_finds(
    across: float, a: float, b: float, n: float
) -> None:
    half = geometry.superellipse_half(
        torch.tensor(across), torch.tensor(a), torch.tensor(b), n
    ).item()
    t = torch.linspace(-100, 100, 20_001, dtype=torch.float64)
    inside = abs(across / a) ** n + (t / b).abs() ** n <= 1
    assert 2 * half == pytest.approx(float(inside.sum()) * 0.01, abs=0.05)


interval = st.tuples(st.floats(-50, 50), st.floats(0, 40))


@given(parts=st.lists(interval, min_size=1, max_size=3))
def test_the_union_of_intervals_is_what_integration_finds(
    parts: list[tuple[float, float]],
) -> None:
    intervals = [
        (torch.tensor(s, dtype=torch.float64), torch.tensor(s + w, dtype=torch.float64))
        for s, w in parts
    ]
    t = torch.linspace(-60, 100, 16_001, dtype=torch.float64)
    covered = torch.zeros(len(t), dtype=torch.bool)
    for start, end in intervals:
        covered |= (t >= start) & (t < end)
    assert float(geometry.union_length(intervals)) == pytest.approx(
        float(covered.sum()) * 0.01, abs=0.05
    )


@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_the_lung_a_ray_crosses_is_the_lung_that_slices_cut(view: str) -> None:
    """The same solids: chord lengths agree with summing CT lung masks along the ray."""
    patients = sample_patients(Draws("test", range(3), "body", 900))
    size, field = 160, 360.0
    for z in (40.0, -30.0, -80.0):
        height = torch.full((3,), z)
        frame = Frame.of(patients, height, size, field)
        full = slice(0, size)
        share = member(frame.cage_q(full, full), 90.0, frame.pixel)
        share = share * organs(frame, full, full).lung_share()
        envelope = (
            (frame.x.abs() - column(patients.lung[:, 0])) / column(patients.lung[:, 1])
        ) ** 2
        envelope = envelope + column(((height - patients.lung[:, 2]) / patients.lung[:, 3]) ** 2)
        share = share * member(envelope, 60.0, frame.pixel)
        at = torch.full((1, 1, 1), z)
        if view == "frontal":
            chord = lung_frontal(patients, frame.x, at)[:, 0]
            summed = share.sum(1) * frame.pixel
        else:
            chord = lung_lateral(patients, frame.y.view(1, 1, -1), at)[:, 0]
            summed = share.sum(2) * frame.pixel
        # Slices also cut the descending aorta, which radiographs leave out.
        assert float((chord - summed).abs().mean()) < 4.0
        assert float(chord.max()) > 60


@given(
    radius=st.floats(0.1, 4), row=st.floats(10, 20), col=st.floats(10, 20), weight=st.floats(0.1, 9)
)
def test_a_small_disc_keeps_to_its_bounding_box(
    radius: float, row: float, col: float, weight: float
) -> None:
    canvas = torch.zeros(2, 32, 32)
    numbers = (torch.tensor([v]) for v in (row, col, radius, weight))
    geometry.splat(canvas, torch.tensor([1]), *numbers, add=True)
    assert canvas[0].abs().sum() == 0
    y, x = torch.nonzero(canvas[1], as_tuple=True)
    reach = max(radius, 0.6) + 0.5
    assert ((y - row) ** 2 + (x - col) ** 2 <= (reach + 1e-3) ** 2).all()
    assert float(canvas.sum()) == pytest.approx(weight, rel=0.35)


def test_a_row_of_discs_adds_up_to_a_tubes_chord() -> None:
    canvas = torch.zeros(1, 64, 64)
    tube, step, pixel = 9.0, 0.25, 1.0
    columns = torch.arange(4, 60, step)
    number = len(columns)
    mass = torch.full((number,), math.pi * tube**2 * step / pixel**2)
    geometry.splat(
        canvas,
        torch.zeros(number, dtype=torch.long),
        torch.full((number,), 32.0),
        columns,
        torch.full((number,), tube),
        mass,
        add=True,
    )
    across = torch.arange(64) - 32.0
    expected = 2 * (tube**2 - across**2).clamp_min(0).sqrt()
    inner = across.abs() < 7
    assert torch.allclose(canvas[0, inner, 32], expected[inner], rtol=0.06)
