"""The figures' colours with common colour blindness: curves stay apart, scales stay scales, everything stands out."""

import itertools
import re

import numpy as np
import pytest

from relational_rnn.pages import read

DRAWING = read("inspection/drawing.js")
PAPER = {"light": "#ffffff", "dark": "#17171a"}
# Machado, Oliveira and Fernandes (2009), severity 1: what remains of linear RGB.
SEEN_AS = {
    "everything": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    part = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def luminance(colour: str) -> float:
    return float(TO_XYZ[1] @ linear(colour))


def colours(name: str) -> list[list[str]]:
    """The lists of a constant of drawing.js: light before dark."""
    found = re.search(rf"const {name} = \{{(.*?)\n  \}};", DRAWING, re.S)[1]
    return [re.findall("#[0-9a-f]{6}", part) for part in re.findall(r"\[(.*?)\]", found)]


@pytest.mark.parametrize("eyes", SEEN_AS)
@pytest.mark.parametrize("scheme", PAPER)
def test_curves_stay_apart_from_one_another(scheme, eyes):
    series = colours("SERIES")[list(PAPER).index(scheme)]
    assert len(series) == 6
    seen = [lab(np.array(SEEN_AS[eyes]) @ linear(colour)) for colour in series]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 10


@pytest.mark.parametrize("scheme", PAPER)
def test_curves_stand_out_from_the_paper(scheme):
    paper = luminance(PAPER[scheme])
    for colour in colours("SERIES")[list(PAPER).index(scheme)]:
        low, high = sorted((paper, luminance(colour)))
        assert (high + 0.05) / (low + 0.05) > 3, colour


def test_lightness_alone_carries_a_scale_and_the_distance_from_zero():
    light_amount, light_sign, dark_amount, dark_sign = ([luminance(c) for c in scale] for scale in colours("SCALES"))
    assert light_amount == sorted(light_amount, reverse=True)
    assert dark_amount == sorted(dark_amount)
    for sign, zero in ((light_sign, max), (dark_sign, min)):
        assert zero(sign) == sign[2]
        for side in (sign[:3], sign[2:]):
            assert side in (sorted(side), sorted(side, reverse=True))
