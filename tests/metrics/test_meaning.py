"""Every figure of fastgan's own has a meaning, and its direction is that of its values."""

import pytest
import torch

from fastgan.metrics import fid, kid, meaning, pairs, prdc, register, suite, text


def test_every_figure_has_one():
    names = [row.name for row in suite.TABLE]
    for extractor in (None, "efflite0", "inception"):
        for figure in [figure for row in suite.rows(names, extractor) for figure in row.figures]:
            known = suite.meaning(figure)
            assert known.about and (known.better or figure == "nll-oracle-real"), figure
    assert suite.meaning("fid").better == "lower" and suite.meaning("unheard-of") == meaning.Meaning("", "")


def features(shift: float) -> torch.Tensor:
    return torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) + shift


def statistics(rows: torch.Tensor) -> fid.Statistics:
    made = fid.Statistics(8)
    made.update(rows)
    return made


def pair(measure):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return measure(images, images + 0.01).mean(), measure(images, -images).mean()


words = [["a", "b", "c"], ["d", "e", "f"], ["g", "h", "i"]]
NEAR_AND_FAR = {  # the figure of what is good, and of what is not
    "fd": lambda: [fid.frechet_distance(statistics(features(0)), statistics(features(s))) for s in (0.1, 3)],
    "kid": lambda: [kid.kernel_distance(features(0), features(s))[0] for s in (0.1, 3)],
    **{
        name: lambda name=name: [getattr(prdc.prdc(features(0), features(s)), name) for s in (0.1, 9)]
        for name in prdc.PRDC._fields
    },
    "l1": lambda: pair(pairs.l1),
    "psnr": lambda: pair(pairs.psnr),
    "ssim": lambda: pair(pairs.ssim),
    "bleu-2": lambda: [text.bleu(s, words, (2,))["bleu-2"] for s in (words, [["a", "d", "g"]])],
    "self-bleu-2": lambda: [text.self_bleu(s, (2,))["self-bleu-2"] for s in (words, [words[0]] * 3)],
    "distinct-2": lambda: [text.distinct_n(s, (2,))["distinct-2"] for s in (words, [words[0]] * 3)],
    "embedding-similarity": lambda: [
        text.embedding_similarity(s, words * 9) for s in (words * 9, [["a", "e", "i"], ["d", "h", "c"]] * 9)
    ],
}


@pytest.mark.parametrize("figure", NEAR_AND_FAR)
def test_the_direction_is_that_of_the_values(figure):
    good, bad = map(float, NEAR_AND_FAR[figure]())
    assert good != bad and suite.meaning(figure).better == ("lower" if good < bad else "higher")


def test_of_a_metric_of_ones_own(monkeypatch):
    monkeypatch.setattr(suite.METRICS, "_given", {})
    register("roughness", better="lower", about="mean step, 0 to 2")(lambda samples: 1.0)
    assert suite.meaning("roughness") == ("lower", "mean step, 0 to 2")
    with pytest.raises(ValueError, match="better is 'less', expected 'lower'"):
        register("other", better="less")
