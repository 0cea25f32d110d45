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
        contrast: slope of the display curve.
        sharpness: share of fine detail that post-processing adds back (unsharp masking).
        equalise: share of the coarse shading that post-processing takes out.
        collimation: mean width of the dark collimation border in mm; 0: none.
        marker: lead letter in the upper corner: R beside the patient's right shoulder, L beside
            the left, P (portable) at the right; "": none.
        supine: share of frontal images taken lying: other position, poorer breath, more scatter.

    The fields from ``contrast`` on are those of `medbench.phantom.chest`.
    """

    name: str
    field_of_view: float = 336.0
    photons: float = 120000.0
    scatter: float = 0.25
    gamma: float = 1.0
    contrast: float = 1.55
    sharpness: float = 0.0
    equalise: float = 0.0
    collimation: float = 0.0
    marker: str = ""
    supine: float = 0.0


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

#: One unit for each radiograph dataset. The 5x200 selections are drawn with their parents' units.
XRAY_UNITS: dict[str, XRayUnit] = {
    # Open-i: several community hospitals, upright, soft film-like look.
    "iu-xray": XRayUnit(
        "PHANTOM-D", field_of_view=330.0, photons=360000.0, scatter=0.30, gamma=1.08,
        contrast=1.45, sharpness=0.25, marker="R",
    ),
    # MIMIC-CXR: one hospital, many portable images of the severely ill.
    "mimic-cxr": XRayUnit(
        "PHANTOM-E", field_of_view=320.0, photons=280000.0, scatter=0.34, gamma=0.95,
        contrast=1.60, sharpness=0.55, equalise=0.20, collimation=5.0, marker="L", supine=0.55,
    ),
    # CheXpert: histogram-equalised files.
    "chexpert": XRayUnit(
        "PHANTOM-F", field_of_view=312.0, photons=320000.0, scatter=0.28, gamma=0.90,
        contrast=1.80, sharpness=0.40, equalise=0.35, marker="P", supine=0.60,
    ),
    # NIH: rescaled without their window, dark collimation borders.
    "nih-chestxray14": XRayUnit(
        "PHANTOM-G", field_of_view=326.0, photons=240000.0, scatter=0.26, gamma=1.15,
        contrast=1.50, sharpness=0.10, collimation=8.0, marker="R", supine=0.40,
    ),
    # RSNA takes its images from the NIH's, as DICOM and windowed anew.
    "rsna-pneumonia": XRayUnit(
        "PHANTOM-H", field_of_view=318.0, photons=260000.0, scatter=0.31, gamma=1.00,
        contrast=1.65, sharpness=0.15, equalise=0.10, collimation=6.0, marker="L", supine=0.45,
    ),
    "siim-pneumothorax": XRayUnit(
        "PHANTOM-I", field_of_view=316.0, photons=300000.0, scatter=0.24, gamma=1.05,
        contrast=1.55, sharpness=0.70, collimation=4.0, marker="P", supine=0.40,
    ),
    # COVIDx: many sources at once, the classes alike.
    "covidx": XRayUnit(
        "PHANTOM-J", field_of_view=334.0, photons=180000.0, scatter=0.36, gamma=0.98,
        contrast=1.40, sharpness=0.30, equalise=0.15, collimation=3.0, marker="R", supine=0.50,
    ),
}  # fmt: skip
