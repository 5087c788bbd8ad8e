"""The experiment file: what it gives, that it is read back equal, and one clear line for every mistake."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.experiment import Experiment, load, parse, resolved
from pipelines.config.messages import redacted
from pipelines.config.toml import to_toml
from wave.errors import WaveError
from wave.spec import TargetSpec

GOOD = """
name = "digits"
[data]
path = "data/digits"
convert = "digits"
[ancestor]
architecture = "vit_tiny_patch16_224"
[ancestor.model_args]
embed_dim = 64
img_size = [8, 8]
qkv_bias = true
[ancestor.recipe]
epochs = 10
[distil]
workers = [1, 2]
sizes = {embed_dim = [32, 64], depth = [2, 4]}
[distil.recipe]
steps = 100
lr = 0.002
[initialise]
symmetry = "noise"
symmetry_strength = 0.1
[initialise.recipe]
steps = 20
[[initialise.resources]]
max_params = 5
cpus = 0.5
[[initialise.resources]]
gpus = 0.25
[targets]
grid = {embed_dim = [32, 48], depth = [3, 6]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "digits.toml"
    path.write_text(GOOD)
    return path


def test_values_and_defaults(file: Path) -> None:
    experiment = load(file)
    assert experiment.output == "runs/digits"
    assert experiment.mlflow.experiment == experiment.mlflow.registered_model == "digits"
    assert experiment.ancestor.recipe is not None
    assert experiment.ancestor.recipe.epochs == 10
    assert experiment.ancestor.model_args == {"embed_dim": 64, "img_size": [8, 8], "qkv_bias": True}
    assert experiment.distil.worker_range == (1, 2)
    assert experiment.initialise.resources_for(5_000_000) == {"cpu": 0.5, "gpu": 0.0}
    assert experiment.initialise.resources_for(5_000_001) == {"cpu": 1.0, "gpu": 0.25}
    assert experiment.templates.spec(16, 4.0).blocks["qkv"] == (16, 16)
    names = [spec.name for spec in experiment.target_specs()]
    assert names == ["d032-l03", "d048-l03", "d032-l06", "d048-l06"]


def test_resolved_reads_back_equal(file: Path, tmp_path: Path) -> None:
    experiment = load(file, ["templates.block={qkv=[8,4],proj=[8,8],fc1=[4,4],fc2=[2,2]}", 'data.source=""'])
    other = tmp_path / "resolved.toml"
    other.write_text(resolved(experiment))
    assert load(other) == experiment
    assert "label_smoothing = 0.0" in resolved(experiment)


VALUES = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES, max_size=4))
def test_toml_is_read_back(table: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(table)) == table


def test_overrides(file: Path) -> None:
    experiment = load(
        file,
        [
            "distil.recipe.lr=1e-4",
            "distil.workers=1",
            "ancestor.architecture=vit_small_patch16_224",
            "distil.recipe.steps=",
            "distil.recipe.epochs=2",
            "targets.grid=",
            "targets.sizes=[{embed_dim=64,depth=6}, {embed_dim=64, depth=6, num_classes=9, img_size=32, patch_size=4}]",
        ],
    )
    assert (experiment.distil.recipe.lr, experiment.distil.recipe.epochs, experiment.distil.recipe.steps) == (
        1e-4,
        2,
        None,
    )
    assert experiment.ancestor.architecture == "vit_small_patch16_224"
    assert experiment.target_specs() == [TargetSpec(64, 6), TargetSpec(64, 6, 9, 32, 4)]
    assert load(file, ["targets.grid.depth=[5]"]).target_specs()[0] == TargetSpec(32, 5)


# override, then what the one line must hold
MISTAKES = [
    ("distil.recipe.lrr=1", "--set distil.recipe.lrr is not a key; nearest: lr"),
    ("distil.epochs=1", "distil.epochs is not a key; nearest: distil.recipe.epochs"),
    ("dtaa.path=x", "dtaa is not a key; nearest: data"),
    ("zzzz=1", "zzzz is not a key; keys there: "),
    ("targets.sizes=[{embed_dm=3, depth=2}]", "targets.sizes[0].embed_dm is not a key; nearest: embed_dim"),
    (
        "templates.count={qkv=4,proj=4,fc1=4,fc3=4}",
        "count.fc3 is not a kind of matrix; name all of qkv, proj, fc1, fc2",
    ),
    ("templates.block={qkv=[4,4],prj=[4,4]}", "block.prj is not a kind of matrix; name all of qkv, proj, fc1, fc2"),
    ("templates.count={qkv=3}", "templates.count lacks proj, fc1, fc2"),
    (
        "templates.count=0",
        "templates.count=0 should be a whole number of at least 1, or a table of one for each of qkv",
    ),
    ("templates.block=[8]", "templates.block=[8] should be [rows, columns], each a whole number of at least 1, or a"),
    ("seed=-1", "seed=-1 should be greater than or equal to 0"),
    ("seed=1.5", "seed=1.5 should be a valid integer"),
    ("seed=true", "seed=True should be a valid integer"),
    ("name=5", "name=5 should be text"),
    ("name=../x", "1 to 64 letters"),
    ('name="a\\n"', "1 to 64 letters"),
    ("name=", "name is missing"),
    (f"name={'x' * 65}", "1 to 64 letters"),
    ('output="a\\u0000b"', "NUL"),
    (f"output={'x' * 300}", "255 a part"),
    ("data=3", "data=3 should be a table"),
    ("data.path=", "data.path is missing"),
    ('data.path=""', "data.path='' should have at least 1"),
    ("data.convert=digit", "nearest: digits"),
    ("data.source=src", "data.source has no effect with convert='digits'"),
    ("data.convert=imagefolder", "data.source is missing"),
    ('data={path="x", convert="fashion-mnist", image_size=32}', "data.image_size has no effect with convert='fashion"),
    ("data.hflip=1.5", "data.hflip=1.5 should be less than or equal to 1"),
    ("data.hflip=nan", "data.hflip=nan should be a finite number"),
    ("data.hflip=0.5", "initialise.teacher_logits"),
    ("data.augment=rnd", "rand-m9-mstd0.5-inc1"),
    ("data.in_memory=maybe", "data.in_memory='maybe' should be \"auto\", true or false"),
    ("ancestor.source=hub:x", "ancestor.source='hub:x' should be train"),
    ("ancestor.source=timm:deit_tiny_patch16_224", "ancestor.architecture has no effect"),
    ("ancestor.source=checkpoint:a.safetensors", "ancestor.recipe has no effect"),
    ("ancestor.architecture=", "ancestor.architecture is missing"),
    ("ancestor.recipe=", "ancestor.recipe is missing"),
    ("ancestor.mean=[0.5]", "ancestor.mean and std belong together"),
    ("distil.recipe.lr=-1", "distil.recipe: lr=-1.0 must be greater than 0"),
    ("distil.recipe.lr=fast", "distil.recipe.lr='fast' should be a valid number"),
    ("distil.recipe.epochs=2", "give exactly one"),
    ("distil.recipe.precision=float16", "nearest: bfloat16"),
    ("distil.workers=[2,1]", "should be [least, most]"),
    ("distil.workers=3", "distil.recipe.batch_size=128 is not a multiple of 3 workers; nearest: 126 and 129"),
    ("distil.workers=two", "distil.workers='two'"),
    ("distil.workers=[1,2,3]", "[1, 2, 3] should be a whole number of at least 1, or two of them, [least, most]"),
    ("ancestor.model_args.depth={a=1}", "depth={'a': 1} should be true, false, a number, text or a list of whole"),
    (
        "ancestor.recipe.kl_weight=0.5",
        "ancestor.recipe.kl_weight=0.5 has no effect: an ancestor has neither teacher nor",
    ),
    ("distil.sizes.depth=[2,2]", "distil.sizes.depth names 2 more than once"),
    ("distil.resources_per_worker={GPU=1}", "has no effect with use_gpu=false"),
    ("initialise.symmetry=none", "initialise.symmetry_strength has no effect"),
    ("initialise.depth=nearst", "nearest: nearest"),
    ("initialise.recipe.mixup=0.8", "mixup and cutmix change them"),
    ("initialise.resources=[{cpus=0.00001}]", "initialise.resources[0].cpus=1e-05 should be a multiple of 0.0001"),
    ("distil.resources_per_worker={CPU=0.00001}", "CPU=1e-05 should be a multiple of 0.0001, Ray's smallest share"),
    ("initialise.resources=[{max_params=5}]", "has no rule above 5.0 million"),
    ("initialise.resources=[{cpus=1},{cpus=2}]", "never matches"),
    ("targets.grid=", "targets names no size"),
    ("targets.sizes=[{embed_dim=3, depth=2}]", "targets has both grid and sizes"),
    ("targets.grid.depth=[]", "at least 1 item"),
    ("targets.grid.depth=[0]", "targets.grid.depth[0]=0 should be greater than or equal to 1"),
    ("targets.grid.depth=[3,3]", "targets.grid.depth names 3 more than once"),
    ("mlflow.experiment=a/b", "mlflow.experiment='a/b' should"),
    ("no equals sign", "write section.key=value"),
    (".x=1", "write section.key=value"),
    ("name.x=1", "name is not a table; set it whole"),
    ("initialise.resources.cpus=1", "initialise.resources is not a table; set it whole"),
]


@pytest.mark.parametrize(("override", "text"), MISTAKES, ids=[override[:40] for override, _ in MISTAKES])
def test_mistake_is_one_line(file: Path, override: str, text: str) -> None:
    with pytest.raises(WaveError) as caught:
        load(file, [override])
    message = str(caught.value)
    assert text in message
    assert "\n" not in message
    assert len(message) < 400
    assert str(file) in message or "--set" in message


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ("[targets]\nsizes = [{embed_dim = 8, depth = 2}, {embed_dim = 8, depth = 2}]", "d008-l02 more than once"),
        ("[targets]\nsizes = [{embed_dim = 8, depth = 2, img_size = 10, patch_size = 4}]", "nearest: 8"),
        ("[targets]\nsizes = [{embed_dim = 8}]", "targets.sizes[0].depth is missing"),
        ("[cluster]\naddress = 'auto'\nnum_cpus = 2\n[targets]\ngrid = {embed_dim = [8], depth = [1]}", "num_cpus"),
        ("", "targets is missing"),
    ],
)
def test_mistake_in_the_file(tmp_path: Path, extra: str, text: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(GOOD.partition("[targets]")[0] + extra)
    with pytest.raises(WaveError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)


def test_typing_error_comes_before_what_is_missing_for_it() -> None:
    with pytest.raises(WaveError, match=r"^experiment: nam is not a key; nearest: name \(and \d+ more\)$"):
        parse({"nam": "x", "data": {}})


def test_sampling_without_sizes(file: Path) -> None:
    with pytest.raises(WaveError, match=r"sizes_per_step has no effect"):
        load(file, ["distil.sizes=", "distil.sizes_per_step=2"])


def test_color_jitter_beside_a_policy(file: Path) -> None:
    with pytest.raises(WaveError, match=r"data.color_jitter has no effect with augment"):
        load(file, ["data.augment=rand-m9-mstd0.5-inc1", "data.color_jitter=0.4", "initialise.teacher_logits=false"])


def test_images_may_change_where_stage_2_trains_nothing(file: Path):
    """Both ways out that the message names would be refused there: without a recipe neither has an effect."""
    sets = ["data.hflip=0.5", "initialise.recipe=", "initialise.compare_scratch=", "initialise.subset="]
    assert load(file, [*sets, "initialise.teacher_logits="]).data.changes_images


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "digits.toml").write_text(GOOD)
    bad = tmp_path / "bad.toml"

    def message(path: Path | str) -> str:
        with pytest.raises(WaveError) as caught:
            load(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert f"no such file; nearest: {tmp_path / 'digits.toml'}" in message(tmp_path / "digit.toml")
    assert "is a folder" in message(tmp_path)
    assert "no such file" in message(tmp_path / "nowhere" / "x.toml")
    assert "cannot be read" in message("a\0b")
    assert "cannot be read" in message("x" * 5000)
    bad.write_text('a = 1\nb = "x\n')
    assert f"{bad}: not valid TOML" in message(bad)
    assert "line 2" in message(bad)
    bad.write_bytes(b"a = 1\nb = '\xff'\n")
    assert "line 2 is not UTF-8" in message(bad)
    bad.write_text("a = " + "[" * 5000)
    assert "more than 32 tables or lists in one another" in message(bad)
    bad.write_text("a = " + "1" * 5000)
    assert "a number of more than 64 digits" in message(bad)
    bad.write_text("name = 1\nname = 2")
    assert "not valid TOML" in message(bad)
    bad.write_text("")
    assert "is missing" in message(bad)


def test_password_is_not_shown(file: Path) -> None:
    uri = "https://user:s3cret@host:5000/path"
    experiment = load(file, [f"mlflow.tracking_uri={uri}"])
    assert experiment.mlflow.tracking_uri == uri
    assert "s3cret" not in resolved(experiment) + repr(experiment)
    assert "https://user@host:5000/path" in resolved(experiment)
    with pytest.raises(WaveError) as caught:
        load(file, [f"name={uri}"])
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["", "sqlite:///mlflow.db", "http://host:5000", "x", "https://user@host/a?b=c"])
def test_uri_without_a_password_is_unchanged(uri: str) -> None:
    assert redacted(uri) == uri


def test_password_in_a_query() -> None:
    assert redacted("postgresql://host/db?password=x&ssl=1") == "postgresql://host/db?ssl=1"


def test_experiment_is_frozen(file: Path) -> None:
    experiment: Experiment = load(file)
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_augmentation_that_a_subset_in_memory_cannot_have(file: Path) -> None:
    sets = ["data.reprob=0.5", "initialise.recipe.steps=4", "initialise.subset=64", "initialise.teacher_logits=false"]
    with pytest.raises(
        WaveError, match=r"initialise.subset=64 .*data.reprob has no effect; set subset = 0, or teacher"
    ):
        load(file, sets)
    with pytest.raises(WaveError, match=r"data.reprob has no effect; set subset = 0$"):
        load(file, [*sets[:3], "initialise.recipe.kl_weight=0.0"])
    assert load(file, [*sets[:3], "initialise.teacher_logits=true"]).data.reprob == 0.5
    assert load(file, ["data.hflip=0.5", *sets[1:]]).data.hflip == 0.5
