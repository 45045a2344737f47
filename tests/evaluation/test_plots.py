"""The images of a report."""

from __future__ import annotations

import io

import pytest

from vqcodec.evaluation.bootstrap import Mean
from vqcodec.evaluation.report import BIT_RATE, WORD_ERROR_RATE

image = pytest.importorskip("matplotlib.image")


def test_the_names_of_many_codecs_fit_into_the_picture() -> None:
    from vqcodec.evaluation import plots

    names = ["original", *(f"vqcodec (fast), generation {n}" for n in range(2, 10))]
    columns = (BIT_RATE, "STOI", "PESQ-WB", "speaker similarity", WORD_ERROR_RATE)
    means = {
        name: {column: Mean(1.0 + n, 1, None, 1) for column in columns}
        for n, name in enumerate(names)
    }
    picture = image.imread(io.BytesIO(plots.rates(means, ours=names[1:2], original="original")))
    assert (picture[:, [0, -1], :3] == 1).all()
