"""The wrong inputs, one a line: a name, what the message has to hold, ``--set`` overrides, the command, what is spoilt."""

# ruff: noqa: E501 (a table)

from dataclasses import dataclass, field

import torch

from tests.pipelines.bad_files import (
    TRAIN_SHARD,
    Spoil,
    cut,
    data,
    edited,
    encoded,
    file,
    hostile,
    locked,
    model,
    pictures,
    relabelled,
    running,
    templates,
    version,
    weights,
)  # fmt: skip

SIZE = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 4, "img_size": 8, "in_chans": 1, "num_classes": 10}
TRAIN = (
    *("ancestor.source=train", "ancestor.architecture=vit_tiny_patch16_224", "ancestor.recipe={steps=4,batch_size=32}"),
    *(f"ancestor.model_args.{key}={SIZE[key]}" for key in ("embed_dim", "depth", "num_heads", "patch_size")),
)
CHECKPOINT = (
    *("ancestor.architecture=vit_tiny_patch16_224", "ancestor.mean=[0.5]", "ancestor.std=[0.5]"),
    *(f"ancestor.model_args.{key}={SIZE[key]}" for key in ("embed_dim", "depth", "num_heads", "patch_size")),
)
DEAD = "127.0.0.1:9"
"""An address where nothing listens."""


@dataclass(frozen=True)
class Case:
    """A command that has to fail. ``says`` are regular expressions that its one line holds."""

    name: str
    says: tuple[str, ...]
    sets: tuple[str, ...] = ()
    argv: tuple[str, ...] = ("run", "x.toml")
    spoil: Spoil = lambda here, world: None
    env: dict[str, str] = field(default_factory=dict)
    waits: bool = False
    """Waits for a time limit: started first, beside the others."""


def s(*texts: str) -> tuple[str, ...]:
    return texts


ONE = 'evaluate.studies=[{name="one", methods=["wave"], sizes=[{embed_dim=32, depth=2}], learning_rates=[1e-3]}]'

CASES = [
    # the command line
    Case("no such command", s("'rnu'", "--help"), argv=("rnu",)),
    Case("no file named", s("FILE", "--help"), argv=("run",)),
    Case("no such option", s("--fast", "--help"), argv=("run", "x.toml", "--fast")),
    Case("no such file", s(r"y\.toml: no such file; nearest: x\.toml"), argv=("run", "y.toml")),
    Case("file name with a line break", s(r"a b\.toml: no such file"), argv=("run", "a\nb.toml")),
    Case("not TOML", s(r"x\.toml: not valid TOML", "line 1"), spoil=file("x.toml", "name = \n")),
    Case("not text", s(r"x\.toml: line 1 is not UTF-8"), spoil=file("x.toml", b"\xff\xfe")),
    Case("override without a value", s("--set seed", "section.key=value"), ("seed",)),
    # the experiment file
    Case("unknown key", s("dtaa is not a key; nearest: data"), ("dtaa.path=x",)),
    Case("misspelt key", s("distil.recipe.stesp is not a key; nearest: steps"), ("distil.recipe.stesp=4",)),
    Case("wrong type", s("distil.recipe.lr='fast' should be a valid number"), ("distil.recipe.lr=fast",)),
    Case("a section that is no table", s("templates=3 should be a table"), ("templates=3",)),
    Case("missing section", s(r"x\.toml: .* is missing"), spoil=file("x.toml", 'name = "a"')),
    Case("unknown choice", s("nearest: nearest"), ("initialise.depth=nearst",)),
    Case("setting without effect", s("ancestor.architecture has no effect"), ("ancestor.architecture=vit_tiny_patch16_224",)),
    Case("statistics that nothing reads", s("ancestor.mean has no effect"), (*TRAIN, "ancestor.mean=[0.5]", "ancestor.std=[1]")),
    Case("empty target list", s("targets names no size"), ("targets.grid=", "targets.sizes=[]")),
    Case("empty grid", s(r"targets.grid.depth=\[\] .*at least 1"), ("targets.grid.depth=[]",)),
    Case(
        "duplicate sizes", s("targets.sizes names d032-l02 more than once"),
        ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2},{embed_dim=32,depth=2}]"),
    ),
    Case(
        "one size under two names", s("d032-l02-c10 is the same size as d032-l02"),
        ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2},{embed_dim=32,depth=2,num_classes=10}]"),
    ),
    Case("depth of zero", s(r"depth\[0\]=0 should be greater than or equal to 1"), ("targets.grid.depth=[0]",)),
    Case("infinite rate", s("distil.recipe.*lr=inf must be a finite number"), ("distil.recipe.lr=inf",)),
    Case("no auxiliary model and no size", s("distil.auxiliary has no effect without distil.sizes"), ("distil.sizes=", "distil.auxiliary=true")),
    Case("a distribution of no sizes", s("distil.cost_power has no effect without distil.sizes"), ("distil.sizes=", "distil.cost_power=0.5")),
    Case("ancestor's temperature", s("ancestor.recipe.tau=4.0 has no effect: an ancestor has neither"), (*TRAIN, "ancestor.recipe.tau=4.0")),
    Case("rate of frozen templates", s("initialise.recipe.template_lr_scale=3.0 has no effect: templates are frozen"), ("initialise.recipe.template_lr_scale=3.0",)),
    Case("compiled and left out", s("distil.recipe.compile compiles the auxiliary model"), ("distil.auxiliary=false", "distil.recipe.compile=true")),
    Case("subset of nothing", s("initialise.subset has no effect without"), ("initialise.recipe=", "initialise.compare_scratch=false", "initialise.subset=100")),
    Case("temperature of no teacher", s("tau=4.0 has no effect with kl_weight=0"), ("distil.recipe.kl_weight=0", "distil.recipe.tau=4.0")),
    Case("no classifier", s("ancestor.model_args.num_classes=0 should be a whole number from 1", "with a classifier's outputs"), (*TRAIN, "ancestor.model_args.num_classes=0")),
    Case("directory of no classifier", s("holds a model of num_classes=10; the description beside it says num_classes=0"), ("ancestor.source=local-dir:model",), spoil=model(edited("config.json", num_classes=0))),
    Case("weights of no classifier", s("timm:vit_small_patch14_dinov2: vit_small_patch14_dinov2 has no classifier", "num_classes of at least 1"), ("ancestor.source=timm:vit_small_patch14_dinov2",)),
    Case("heads that do not divide timm's width", s("ancestor: num_heads=5 does not divide embed_dim=192; nearest: 4"), (*TRAIN, "ancestor.model_args.embed_dim=", "ancestor.model_args.num_heads=5")),
    Case("norm that timm lacks", s("timm cannot make vit_tiny_patch16_224 with norm_layer='foo'; leave it out"), (*TRAIN, "ancestor.model_args.norm_layer=foo")),
    Case("start that timm lacks", s("timm cannot make vit_tiny_patch16_224 with weight_init='bad'; leave it out"), (*TRAIN, "ancestor.model_args.weight_init=bad")),
    Case("weights among the arguments", s("ancestor.model_args.checkpoint_path says how timm makes a model"), (*TRAIN, "ancestor.model_args.checkpoint_path=x.pt")),
    Case("ancestor's weight of a teacher", s("ancestor.recipe.kl_weight=0.5 has no effect"), (*TRAIN, "ancestor.recipe.kl_weight=0.5")),
    Case("fifth kind of matrix", s("templates.count.fc3 is not a kind of matrix; name all of qkv, proj, fc1, fc2"), ("templates.count={qkv=4,proj=4,fc1=4,fc3=4}",)),
    Case("three numbers of workers", s(r"distil.workers=\[1, 2, 3\] should be a whole number of at least 1, or two of them"), ("distil.workers=[1,2,3]",)),
    Case("a switch that is text", s("ancestor.model_args.qkv_bias='no' should be true or false"), (*TRAIN, "ancestor.model_args.qkv_bias=no")),
    Case("a trial of nothing", s("initialise.resources has a rule of neither CPU nor GPU", "set cpus = 1"), ("initialise.resources=[{cpus=0}]",)),
    Case("a worker of nothing", s("distil.resources_per_worker gives a worker nothing", "set CPU = 1"), ("distil.resources_per_worker={CPU=0}",)),
    Case("pairs of an odd number", s("distil.recipe: batch_size=2 on 2 workers is an odd number of images on each", "nearest: 4"), ("distil.workers=2", "distil.recipe.batch_size=2", "distil.recipe.mixup=0.8")),
    Case("comparison of nothing", s(r"x\.toml: has no \[\[evaluate.studies\]\]"), argv=("evaluate", "x.toml")),
    Case("digits as large as a house", s("image_size=1000000 must be from 1 to 8192"), argv=("data", "digits", "big", "--image-size", "1000000")),
    Case("digits from somewhere", s("'elsewhere' has no effect: digits come with scikit-learn"), argv=("data", "digits", "elsewhere", "out2")),
    Case("statistics of digits", s("statistics=measured has no effect with digits"), argv=("data", "digits", "out2", "--statistics", "measured")),
    Case("readers of what is in memory", s("data.workers=3 has no effect on .*held in memory"), ("data.workers=3",)),
    Case("logits without training", s("initialise.teacher_logits has no effect without .initialise.recipe"), ("initialise.recipe=", "initialise.compare_scratch=", "initialise.subset=", "initialise.teacher_logits=false")),
    Case("output that is a URI", s("output='s3://b/x' is a URI; give a folder"), ("output=s3://b/x",)),
    Case("more digits than memory", s("image_size=8000 of 1797 digits does not fit into memory"), argv=("data", "digits", "big", "--image-size", "8000")),
    Case("directory of no deviation", s(r"model/config.json: not a timm or transformers configuration of a ViT \(mean=.* and std=\[0.0\] should be a number a channel"), ("ancestor.source=local-dir:model",), spoil=model(edited("config.json", pretrained_cfg={"mean": [0.5], "std": [0.0]}))),
    Case("password in what is no address", s(r"mlflow.tracking_uri='http://me:\*\*\*@host:99999' is not a URI"), ("mlflow.tracking_uri=http://me:geheim@host:99999",)),
    Case("no heads", s("ancestor.model_args.num_heads=0 should be"), (*TRAIN, "ancestor.model_args.num_heads=0")),
    Case("patches of nothing", s("ancestor.model_args.patch_size=0 should be"), (*TRAIN, "ancestor.model_args.patch_size=0")),
    Case("no channels", s("ancestor.model_args.in_chans=0 should be"), (*TRAIN, "ancestor.model_args.in_chans=0")),
    Case("more sizes a step than there are", s("distil.sizes_per_step=9 is more than the 1 sizes", "nearest: 1"), ("distil.sizes={embed_dim=[32],depth=[2]}", "distil.sizes_per_step=9")),
    Case("no multiple of the workers", s("batch_size=32 is not a multiple of 3", "30 and 33"), ("distil.workers=3",)),
    Case("warm-up longer than training", s("distil.recipe: warmup_steps=9", "all 4 steps"), ("distil.recipe.warmup_steps=9",)),
    Case("ancestor's batches", s("ancestor.recipe: .*batch_size=33 .*2 workers"), (*TRAIN, "distil.workers=2", "ancestor.recipe.batch_size=33")),
    Case("stage 2's warm-up", s("initialise.recipe: warmup_steps=4"), ("initialise.recipe.warmup_steps=4",)),
    # names that leave the output folder, and output that cannot be written
    Case("name that leaves the folder", s("1 to 64 letters"), ("name=../x",)),
    Case("registered name that leaves the folder", s(r"registered_model='\.\./x'"), ("mlflow.registered_model=../x",)),
    Case("registered name of dots", s("registered model name", "A-Z"), ("mlflow.registered_model=..",)),
    Case("file in the output's path", s("output='f/out' cannot be written", "Not a directory", "another folder"), ("output=f/out",), spoil=file("f")),
    Case("output is a file", s("output='f' cannot be written"), ("output=f",), spoil=file("f")),
    Case("output where nobody can write", s("output='/proc/wave' cannot be written"), ("output=/proc/wave",)),
    Case("home of nobody", s("output='~nobody-here/out'", "write the path out"), ("output=~nobody-here/out",)),
    Case("a file where models go", s("out/models is a file", "remove it"), spoil=file("out/models")),
    Case("another run", s("process 4711", "out; wait for it"), spoil=running),
    # data
    Case("no data", s("nowhere: no such folder", "python -m pipelines data"), ("data.path=nowhere",)),
    Case("data folder without shards", s(r"bad: has no train-\*\.parquet"), ("data.path=bad",), spoil=file("bad/readme.txt")),
    Case("missing split", s(r"bad: has no test-\*"), ("data.path=bad",), spoil=data(lambda d: (d / "test-00000-of-00001.parquet").unlink())),
    Case("corrupt Parquet", s(f"bad/{TRAIN_SHARD}: not a readable Parquet file"), ("data.path=bad",), spoil=data(cut(TRAIN_SHARD))),
    Case("label too large", s(f"bad/{TRAIN_SHARD}: row 0 has label 10; 10 classes allow 0 to 9"), ("data.path=bad",), spoil=data(lambda d: relabelled(d, 10))),
    Case("negative label", s("row 0 has label -1"), ("data.path=bad",), spoil=data(lambda d: relabelled(d, -1))),
    Case("image that does not decode", s("bad/train-.*: row 2: the image does not decode"), ("data.path=bad",), spoil=encoded),
    Case("augmentation of raw images", s("data.reprob has no effect on .*raw"), ("data.reprob=0.5", "initialise.teacher_logits=false")),
    Case("converter's source", s("images/val/cat/b.png: the image does not decode"), argv=("data", "imagefolder", "images", "made"), spoil=pictures),
    Case("converter without a source", s("nowhere: no such folder"), argv=("data", "imagefolder", "nowhere", "made")),
    Case("converter over other files", s("full: exists already"), argv=("data", "digits", "full"), spoil=file("full/x")),
    Case("converter into a file", s("f/made: cannot be written"), argv=("data", "digits", "f/made"), spoil=file("f")),
    Case("unknown converter", s("'cifar'", "digits"), argv=("data", "cifar", "made")),
    Case("image size of no effect", s("image_size=4 has no effect"), argv=("data", "fashion-mnist", "made", "--image-size", "4")),
    # ancestor
    Case("unknown architecture", s("ancestor: timm has no architecture 'vit_tinny'"), (*TRAIN, "ancestor.architecture=vit_tinny")),
    Case("windowed model", s("SwinTransformer is not supported", "vit_base"), (*TRAIN, "ancestor.architecture=swin_tiny_patch4_window7_224", "ancestor.model_args=")),
    Case("rotary model", s("Eva is not supported"), (*TRAIN, "ancestor.architecture=eva02_tiny_patch14_224", "ancestor.model_args=")),
    Case("unsupported model of the hub", s("timm:resnet18: ResNet is not supported"), ("ancestor.source=timm:resnet18",)),
    Case("patches larger than the image", s("ancestor: img_size=8 is not a multiple of patch_size=16"), (*TRAIN, "ancestor.model_args.patch_size=16")),
    Case("heads that do not divide the width", s("num_heads=5 does not divide embed_dim=32; nearest: 4"), (*TRAIN, "ancestor.model_args.num_heads=5")),
    Case("argument that timm does not know", s("embed_dmi is no argument of .*; nearest: embed_dim"), (*TRAIN, "ancestor.model_args.embed_dmi=3")),
    Case("drop rate above one", s("ancestor.model_args.drop_path_rate=1.5 should be at least 0 and less than 1"), (*TRAIN, "ancestor.model_args.drop_path_rate=1.5")),
    Case("hybrid model", s("patch_embed is HybridEmbed"), (*TRAIN, "ancestor.architecture=vit_tiny_r_s16_p8_224")),
    Case("relative positions", s("VisionTransformerRelPos is not supported"), (*TRAIN, "ancestor.architecture=vit_relpos_base_patch16_224")),
    Case("hidden width that no block divides", s("105 hidden channels, no multiple of the blocks' 16"), (*TRAIN, "ancestor.model_args.mlp_ratio=3.3")),
    Case("ancestor beyond any memory", s("takes .* GB, this machine has"), (*TRAIN, "ancestor.model_args.embed_dim=16384", "ancestor.model_args.depth=40")),
    Case("ancestor of absurd width", s("embed_dim=10000000 should be a whole number from 1 to 16384"), (*TRAIN, "ancestor.model_args.embed_dim=10000000")),
    Case("other classes", s("the ancestor has 7 classes, .*data has 10", "fine-tune it .* local-dir:PATH or checkpoint:PATH"), (*TRAIN, "ancestor.model_args.num_classes=7")),
    Case("other images", s("the ancestor reads 3x16x16 images, .*1x8x8"), (*TRAIN, "ancestor.model_args.in_chans=3", "ancestor.model_args.img_size=16")),
    Case("no checkpoint", s(r"none\.safetensors: no such file"), (*CHECKPOINT, "ancestor.source=checkpoint:none.safetensors")),
    Case("checkpoint of other shapes", s(r"w\.safetensors: tensor blocks.0.mlp.fc1.bias has shape \(3,\), the model's is \(128,\)", "model_args"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors"), spoil=weights(lambda w: w.update({"blocks.0.mlp.fc1.bias": torch.zeros(3)}))),
    Case("checkpoint without a tensor", s("tensor norm.bias is missing"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors"), spoil=weights(lambda w: w.pop("norm.bias"))),
    Case("checkpoint of a deeper model", s("holds a model of depth=2; ancestor.model_args says depth=1"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors", "ancestor.model_args.depth=1"), spoil=weights(lambda w: None)),
    Case("checkpoint with NaN", s("tensor norm.bias holds NaN"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors"), spoil=weights(lambda w: w["norm.bias"].fill_(float("nan")))),
    Case("checkpoint that is text", s(r"w\.safetensors: not a checkpoint"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors"), spoil=file("w.safetensors", "hello")),
    Case("hostile checkpoint", s(r"w\.pt: refused, .* could run code", "safetensors"), (*CHECKPOINT, "ancestor.source=checkpoint:w.pt"), spoil=hostile("w.pt", True)),
    Case("hostile pickle", s(r"w\.pt: refused, .* could run code"), (*CHECKPOINT, "ancestor.source=checkpoint:w.pt"), spoil=hostile("w.pt", False)),
    Case("hostile pickle by another name", s(r"w\.safetensors: not a checkpoint"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors"), spoil=hostile("w.safetensors", False)),
    Case("directory without weights", s("model/model.safetensors: no such file"), ("ancestor.source=local-dir:model",), spoil=model(lambda m: (m / "model.safetensors").unlink())),
    Case("directory without configuration", s("nowhere/config.json: No such file", "a model's folder holds config.json"), ("ancestor.source=local-dir:nowhere",)),
    Case("configuration that is none", s("model/config.json: not a timm or transformers configuration"), ("ancestor.source=local-dir:model",), spoil=model(edited("config.json", model_args=7))),
    Case("configuration of another model", s("holds a model of num_classes=10; the description beside it says num_classes=3"), ("ancestor.source=local-dir:model",), spoil=model(edited("config.json", num_classes=3))),
    Case("alias that no model has", s("models:/digits@best: .*alias", "models list"), ("ancestor.source=models:/digits@best",)),
    Case("registry without the ancestor", s("models:/none/1", "models list"), ("ancestor.source=models:/none/1",)),
    # templates and sizes
    Case("width no multiple of head_dim", s("targets: d040-l02: embed_dim=40", "32 and 48, or give num_heads, as in num_heads=4 of 10 channels each"), ("targets.grid.embed_dim=[40]",)),
    Case("a target's heads that do not divide the width", s("targets: d040-l02-h3: num_heads=3 does not divide embed_dim=40", "nearest: 4"), ("targets.grid=", "targets.sizes=[{embed_dim=40,depth=2,num_heads=3}]")),
    Case("heads wider than the templates'", s("targets: d040-l02-h2: head_dim is 20; .* num_heads=4 or more"), ("targets.grid=", "targets.sizes=[{embed_dim=40,depth=2,num_heads=2}]")),
    Case("sampled heads that do not divide the width", s("distil.sizes: d040-l02-h3: num_heads=3"), ("distil.sizes=[{embed_dim=40,depth=2,num_heads=3}]",)),
    Case("a sampled size twice", s("distil.sizes names d032-l02 more than once"), ("distil.sizes=[{embed_dim=32,depth=2},{embed_dim=32,depth=2}]",)),
    Case("no hidden channel", s(r"targets.sizes\[0\].mlp_ratio=0.01 of 32 is no hidden channel"), ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2,mlp_ratio=0.01}]")),
    Case("the ancestor's heads given", s("targets: d032-l02-h2 is the same size as d032-l02"), ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2},{embed_dim=32,depth=2,num_heads=2}]")),
    Case("a study's heads that do not divide the width", s("one: timm_default: d040-l02-h3: num_heads=3"), ('evaluate.studies=[{name="one", methods=["timm_default"], sizes=[{embed_dim=40, depth=2, num_heads=3}]}]',), argv=("evaluate", "x.toml")),
    Case("width that blocks cannot build", s("targets: d048-l02: embed_dim=48 cannot be built", "32 and 64"), ("templates.block=[32,32]", "templates.count=2", "templates.order=interleave", "distil.sizes=")),
    Case("sampled size that blocks cannot build", s("distil.sizes: d048-l02: embed_dim=48", "32 and 64"), ("templates.block=[32,32]", "templates.count=2", "templates.order=interleave", "targets.grid.embed_dim=[64]")),
    Case("ancestor that blocks cannot build", s("templates: embed_dim=32 cannot be built"), ("templates.block=[5,5]",)),
    Case("auxiliary that blocks cannot build", s("templates.auxiliary: embed_dim=40"), ("templates.auxiliary={embed_dim=40,depth=2}",)),
    Case("more templates than the ancestor's blocks", s("templates: count of proj is 9", "use at most 8"), ("templates.count=9",)),
    Case("more templates than a block has entries", s("templates: qkv: 300 templates of 16x16", "256"), ("templates.count=300",)),
    Case("target's image no multiple of its patch", s("img_size", "10", "patch_size=4"), ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2,img_size=10,patch_size=4}]")),
    Case("target's image no multiple of the ancestor's patch", s("targets: d032-l02-i10: img_size=10", "patch_size=4"), ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2,img_size=10}]")),
    Case("target of no class", s("num_classes=0 should be greater"), ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2,num_classes=0}]")),
    Case("target beyond any memory", s("targets: d16384-l1024 takes .* GB"), ("targets.grid={embed_dim=[16384],depth=[1024]}",)),
    Case("templates of another version", s("out/templates/templates.json: format version 99; this program reads 1", "remove .*out/templates"), spoil=templates(edited("templates.json", version=99))),
    Case("templates cut short", s("templates.safetensors: wrong checksum"), spoil=templates(cut("templates.safetensors"))),
    Case("templates' JSON cut short", s("templates.json: not valid JSON"), spoil=templates(cut("templates.json"))),
    Case("templates changed by hand", s("templates.json: wrong checksum"), spoil=templates(edited("templates.json", info={"metrics": 1}))),
    # MLflow, Ray, hub: what is elsewhere
    Case("no MLflow server", s(f"no MLflow server answers at http://{DEAD}"), (f"mlflow.tracking_uri=http://{DEAD}",)),
    Case("port of another server", s("no MLflow server at work", "404"), ("mlflow.tracking_uri=http://WEB",)),
    Case("port that never answers", s("no MLflow server answers at .*Timeout"), ("mlflow.tracking_uri=http://SILENT",), waits=True),
    Case("database busy", s(r"mlflow\.db cannot be used \(database is locked\); end the program"), spoil=locked, waits=True),
    Case("database that is none", s(r"mlflow\.db cannot be used \(file is not a database\)"), spoil=file("mlflow.db", "no database " * 99)),
    Case("database of another MLflow", s("another MLflow version than this"), spoil=lambda here, world: version(here)),
    Case("file store", s("mlflow.tracking_uri='./mlruns' is a folder", "sqlite:///"), ("mlflow.tracking_uri=./mlruns",)),
    Case("database where nobody can write", s("/proc/wave/mlflow.db cannot be used"), ("mlflow.tracking_uri=sqlite:////proc/wave/mlflow.db",)),
    Case("no Ray at the address", s(f"cluster.address: no Ray session on {DEAD}: Connection refused"), (f"cluster.address={DEAD}", "cluster.num_cpus=")),
    Case("no Ray client server", s(f"no Ray session on ray://{DEAD}: Connection refused"), (f"cluster.address=ray://{DEAD}", "cluster.num_cpus=")),
    Case("address that is none", s("cluster.address: no Ray session on somewhere"), ("cluster.address=somewhere", "cluster.num_cpus=")),
    Case("no Ray at RAY_ADDRESS", s(f"no Ray session on {DEAD}"), env={"RAY_ADDRESS": DEAD}),
    Case("more workers than CPUs", s("distil.workers: 4 CPU needed, this machine has 2"), ("distil.workers=4",)),
    Case("trial that no machine can run", s("initialise.resources for d032-l02: 99 CPU needed"), ("initialise.resources=[{cpus=99}]",)),
    Case("GPU that is not there", s("distil.workers: 64 GPU needed"), ("distil.use_gpu=true", "distil.resources_per_worker={GPU=64}")),
    Case("weights that are nowhere", s("timm:deit_tiny_patch16_224: the model hub .* does not answer", "local-dir"), ("ancestor.source=timm:deit_tiny_patch16_224",)),
    Case("no such model in timm", s("timm has no architecture 'vit_tinny'"), ("ancestor.source=timm:vit_tinny",)),
    # the registry's commands
    Case("no alias named", s("'digits' does not name a registered model; use NAME@ALIAS"), argv=("models", "show", "digits")),
    Case("show an unknown model", s("no model 'none'; nearest of 1 is 'digits'"), argv=("models", "show", "none@d032-l02")),
    Case("show an unknown alias", s("'digits' has no alias 'd999-l99'"), argv=("models", "show", "digits@d999-l99")),
    Case("pull an unknown model", s("no model 'none'"), argv=("models", "pull", "none@d032-l02", "pulled")),
    Case("pull an unknown alias", s("no alias 'd999-l99'"), argv=("models", "pull", "digits@d999-l99", "pulled")),
    Case("pull a name that leaves the folder", s(r"Invalid model name '\.\./\.\./x'"), argv=("models", "pull", "../../x@a", "pulled")),
    Case("list an unknown model", s("no model 'none'"), argv=("models", "list", "--registered-model", "none")),
    Case("list without a registry", s("no MLflow database", "run an experiment"), argv=("models", "list"), spoil=lambda here, world: (here / "mlflow.db").unlink()),
    Case("plan an impossible size", s("targets: d040-l02: embed_dim=40"), ("targets.grid.embed_dim=[40]",), argv=("plan", "x.toml")),
    Case("evaluate an impossible size", s("distil.sizes: d040-l02: embed_dim=40"), ("distil.sizes.embed_dim=[40]", 'evaluate.studies=[{name="one", methods=["wave"], sizes=[{embed_dim=32, depth=2}]}]'), argv=("evaluate", "x.toml")),
    Case("evaluate an unknown method", s("'wavee'"), ('evaluate.studies=[{name="one", methods=["wavee"], sizes=[{embed_dim=32, depth=2}]}]',), argv=("evaluate", "x.toml")),
    Case("evaluate an unknown key", s("evaluate.sise is not a key"), ("evaluate.sise=1",), argv=("evaluate", "x.toml")),
    Case("results that are a folder", s("evaluate.results=runs: cannot be written: Is a directory"), ("evaluate.results=runs", ONE), argv=("evaluate", "x.toml"), spoil=lambda here, world: (here / "runs").mkdir(exist_ok=True)),
    Case("results that are no text", s("evaluate.results=rows.jsonl: is not text"), ("evaluate.results=rows.jsonl", ONE), argv=("evaluate", "x.toml"), spoil=lambda here, world: (here / "rows.jsonl").write_bytes(b"\xff\xfe{")),
    Case("results without an accuracy", s("rows.jsonl: line 1 is not a result"), ("evaluate.results=rows.jsonl", ONE), argv=("evaluate", "x.toml"), spoil=lambda here, world: (here / "rows.jsonl").write_text('{"key": "k"}\n')),
    Case("cells on a GPU that is not there", s("evaluate.cpus, evaluate.gpus: 64 GPU needed"), ("evaluate.gpus=64", ONE), argv=("evaluate", "x.toml")),
    Case("cells on nothing", s("evaluate.cpus=0 and gpus=0 give a cell nothing; set cpus = 1"), ("evaluate.cpus=0", ONE), argv=("evaluate", "x.toml")),
    Case("variant too large for the machine", s("evaluate.variants: wave_x: distil.workers: 100000 CPU needed"), (ONE, 'evaluate.variants=[{name="wave_x", set=["distil.resources_per_worker={CPU=100000}"]}]'), argv=("evaluate", "x.toml")),
    Case("variant that warms up for longer than it trains", s("evaluate.variants: wave_x: distil.recipe: warmup_steps=500"), (ONE, 'evaluate.variants=[{name="wave_x", set=["distil.recipe.warmup_steps=500"]}]'), argv=("evaluate", "x.toml")),
    Case("study that mirrors its images", s(r"data.hflip has no effect: cells read unchanged images"), (ONE.replace("[1e-3]}", '[1e-3], data={path="data/digits", hflip=0.5}}'),), argv=("evaluate", "x.toml")),
    Case("tokens that are not pooled", s("global_pool=''; supported are token, avg, max, avgmax"), (*TRAIN, 'ancestor.model_args.global_pool=""')),
    Case("features of dropped patches", s("distil.feature_weight compares all tokens, and the ancestor's patch_drop_rate drops some"), (*TRAIN, "ancestor.model_args.patch_drop_rate=0.5", "distil.feature_weight=1")),
    Case("classes beyond any memory", s("num_classes=100000000000 should be less than or equal to 16777216"), ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2,num_classes=100000000000}]")),
    Case("batch of more images than there are", s("distil.recipe: batch_size=100000000 is more than the [0-9]+ images"), ("distil.recipe.batch_size=100000000",)),
    Case("registered model with a space", s("registered model name 'a b' has to be 1 to 190 of .*nearest is 'a-b'"), ("mlflow.registered_model=a b",)),
    Case("misspelt section by hand", s("error: --set dtaa is not a key; nearest: data"), ("dtaa.path=x",)),
    Case("quoted section by hand", s('error: --set "data is not a key; nearest: data'), ('"data.path"=x',)),
    Case("side of zero for an experiment", s("x.toml says itself what is converted and how"), argv=("data", "x.toml", "--image-size", "0")),
    Case("report on a run with holes", s("holes/results.json: not the results of a run", "'ancestor' is missing"), argv=("report", "holes"), spoil=file("holes/results.json", '{"sizes": [{}]}')),
    Case("registered model without a version", s("models:/digits: ", "write models:/NAME/VERSION or models:/NAME@ALIAS"), ("ancestor.source=models:/digits",)),
    Case("registered model that is none, the latest", s("ancestor.source=models:/none/latest: .*none.* not found; see"), ("ancestor.source=models:/none/latest",)),
    Case("report on nothing", s("results.json: No such file", "finished run"), argv=("report", "nowhere")),
]  # fmt: skip

TRUE_PROCESS = ["misspelt key", "width no multiple of head_dim", "weights that are nowhere"]
