"""What anybody may write into a registry is shown as text, and never keeps a command from its work."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.registry import query as registry
from pipelines.registry import store

ODD = (
    *("x[/foo]", "[bold red]x", "abc", "", "nan", "1e999", "12,5", "\x1b[2J\x1b]0;title\x07", "a\nb\r", "\u202e4321"),
    *(":smiley:", "x" * 4000, "[link=file:///etc/passwd]x[/link]", "٣", "None"),
)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    (tmp_path / "plain").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "plain" / name).write_text("{}")
    return tmp_path / "plain"


def run(workdir: Path, *arguments: str) -> str:
    uri = f"sqlite:///{workdir}/mlflow.db"
    done = CliRunner().invoke(main, [*arguments, "--tracking-uri", uri])
    assert not done.exception or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 0, done.output
    assert not [c for c in done.output if not c.isprintable() and c != "\n"]
    return done.output


@pytest.mark.parametrize("value", ODD, ids=lambda value: ascii(value)[:20])
def test_tags_and_descriptions(opened: store.Store, workdir: Path, plain: Path, value: str):
    batch = registry.batch_run(opened, "shown", "shown", {}, {})
    version = str(registry.publish(opened, plain, "odd", "d032-l02", batch, {}, "", {}))
    client = opened.client()
    for tag in ("parameters", "accuracy_before", "accuracy_after", "wave.process"):
        client.set_model_version_tag("odd", version, tag, value)
    client.update_model_version("odd", version, value)
    listed, shown = run(workdir, "models", "list"), run(workdir, "models", "show", "odd@d032-l02")
    for output in (listed, shown):
        if value.isprintable() and value not in ("nan", "1e999", ""):
            assert "".join(value.split())[:20] in "".join(output.split())
    run(workdir, "models", "doctor")


@pytest.mark.parametrize("name", ["it's", 'a "b"', "[red]x", "[x", "a`b", "%", "ä ö", "x\\'\""])
def test_names_of_models_that_others_registered(opened: store.Store, workdir: Path, name: str):
    client = opened.client()
    client.create_registered_model(name)
    version = client.create_model_version(name, (workdir / "mlartifacts/models/x").as_uri())
    client.set_model_version_tag(name, version.version, "wave.key", "by hand")
    client.set_registered_model_alias(name, "d032", version.version)
    try:
        assert f"{name}@d032" in run(workdir, "models", "list")
        assert f"{name}@d032" in run(workdir, "models", "list", "--registered-model", name)
    finally:
        client.delete_registered_model(name)


def test_doctor_names_what_is_gone(opened: store.Store, workdir: Path, plain: Path):
    batch = registry.batch_run(opened, "shown", "shown", {}, {})
    registry.publish(opened, plain, "gone", "d032-l02", batch, {}, "", {})
    assert "1 models, 0 of them without their files" in run(workdir, "models", "doctor", "--registered-model", "gone")
    for file in (workdir / "mlartifacts").rglob("model.safetensors"):
        file.unlink()
    uri = f"sqlite:///{workdir}/mlflow.db"
    done = CliRunner().invoke(main, ["models", "doctor", "--registered-model", "gone", "--tracking-uri", uri])
    assert done.exit_code == 2
    assert "gone@d032-l02: lacks model.safetensors, which should be in /" in done.output
