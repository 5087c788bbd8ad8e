"""Family: what a model says of all its sizes, in memory and in JSON."""

import pytest
import torch
from torch import nn

from tests.wave.models import FAMILIES, images, tiny
from wave import Family, TargetSpec, WaveError
from wave.family import ratio, size_of


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_creates_its_own_members_again(family: str):
    model = tiny(family)
    found = Family.of(model)
    again = found.create(found.size)
    again.load_state_dict(model.state_dict(), strict=True)
    assert found.size == TargetSpec(16, 2, 5, 16, 8) == found.resolve(size_of(again))
    torch.testing.assert_close(again.eval()(images()), model(images()))
    if family != "dynamic image size":
        assert Family.of(found.create(TargetSpec(32, 3, 4, 32, 4))).size == TargetSpec(
            32, 3, 4, 32, 4
        )


def test_a_family_in_json():
    family = Family.of(tiny("registers", in_chans=2))
    assert Family.from_json(family.to_json()) == family
    assert (family.in_chans, family.head_dim, family.mlp_ratio, family.model_args) == (
        2,
        8,
        4.0,
        {"reg_tokens": 2},
    )


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "vit_of_nowhere"},
        {"architecture": 3},
        {"size": {}},
        {"head_dim": "a"},
        {"extra": 1},
    ],
)
def test_a_damaged_family(change: dict[str, object]):
    with pytest.raises(WaveError):
        Family.from_json({**Family.of(tiny()).to_json(), **change})


def test_a_model_that_its_arguments_do_not_give_again_is_refused():
    pooled = tiny()
    pooled.reset_classifier(5, global_pool="avg")
    with pytest.raises(
        WaveError, match=r"changed after timm.create_model .*create it with .* global_pool='avg'"
    ):
        Family.of(pooled)
    with pytest.raises(WaveError, match=r"norm_layer=.*LayerNorm.* which a saved model cannot say"):
        Family.of(tiny(norm_layer=nn.LayerNorm))
    fewer = tiny()
    fewer.reset_classifier(3)  # the number of classes is of the size, not of the arguments
    assert Family.of(fewer).size.num_classes == 3


def test_widths_and_images_that_do_not_fit_name_what_does():
    family = Family.of(tiny())
    with pytest.raises(WaveError, match="nearest valid widths are 16 and 24"):
        family.create(TargetSpec(20, 2))
    with pytest.raises(WaveError, match="img_size=30 is not a multiple of patch_size=8; try 24"):
        family.create(TargetSpec(16, 2, img_size=30))


def test_the_ratio_gives_back_the_hidden_width_that_timm_rounds_down():
    assert all(
        int(d * ratio(h, d)) == h for d in range(1, 200) for h in (4 * d, int(2.66 * d), 3 * d - 1)
    )
