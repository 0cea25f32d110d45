"""Scanner signatures: what makes the same anatomy look different in another dataset."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CTScanner:
    """A CT scanner and protocol.

    Attributes:
        name: as in the DICOM header.
        field_of_view: width of the image in mm.
        thickness: slice thickness in mm (the slab that a slice averages tubes over).
        noise: standard deviation of quantum noise in HU, at the detector's own resolution.
        grain: correlation of that noise with its neighbours, 0 (sharp kernel) to 1 (soft kernel).
        blur: width of the reconstruction kernel in mm.
        offset: calibration error in HU.
        table: height of the table below the back in mm.
        kvp, exposure: tube voltage in kV and tube charge in mAs.
    """

    name: str
    field_of_view: float = 360.0
    thickness: float = 5.0
    noise: float = 22.0
    grain: float = 0.4
    blur: float = 0.8
    offset: float = 0.0
    table: float = 14.0
    kvp: int = 120
    exposure: int = 100


@dataclass(frozen=True)
class XRayUnit:
    """A radiography unit.

    Attributes:
        name: for people.
        field_of_view: width and height of the image in mm.
        photons: mean photons per pixel of a 64 x 64 image without absorption.
        scatter: share of the signal that is scattered.
        gamma: exponent of the display curve.
    """

    name: str
    field_of_view: float = 336.0
    photons: float = 120000.0
    scatter: float = 0.25
    gamma: float = 1.0


#: COVID-CT-MD: one site, low dose, a soft kernel.
COVID_CT = CTScanner(
    "PHANTOM-A", field_of_view=355.0, thickness=4.0, noise=34.0, grain=0.55, blur=1.4, offset=-6.0,
    table=10.0, kvp=110, exposure=60,
)  # fmt: skip
#: Pre-training pairs: standard dose, a sharper kernel, another field of view.
PAIRS_CT = CTScanner(
    "PHANTOM-B", field_of_view=378.0, thickness=5.0, noise=20.0, grain=0.25, blur=0.7, offset=4.0,
    table=22.0, kvp=120, exposure=140,
)  # fmt: skip
PAIRS_XRAY = XRayUnit("PHANTOM-C")
