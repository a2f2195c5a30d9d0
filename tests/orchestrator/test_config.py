"""Settings: flags override the environment, which overrides the file; what is wrong is named with its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.errors import ConfigError
from orchestrator.resources import folder as shipped


def load(folder: Path, text: str | None = None, **more: object) -> config.Settings:
    if text is not None:
        (folder / config.FILE).write_text(text, encoding="utf-8")
    flags = more.pop("flags", {})
    environ = {"TLVM_DATA_DIR": str(folder / "data")} | dict(more.pop("environ", {}))  # type: ignore[call-overload]
    assert isinstance(flags, dict) and not more
    return config.load(flags, environ=environ, folder=folder)


def test_without_a_file_everything_is_local_and_free(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.provider, settings.project, settings.file) == ("local", "default", None)
    assert settings.store_ref.url == str(tmp_path / "data" / "store")
    assert settings.records_dir == tmp_path / "data" / "records"
    assert settings.run.model == "resnet18"
    assert settings.max_hours == 168


def test_flags_override_variables_override_the_file(tmp_path: Path) -> None:
    text = "[machine]\ncpus = 1\nmemory_gb = 1\ndisk_gb = 1\n"
    environ = {"TLVM_MACHINE_MEMORY_GB": "2", "TLVM_MACHINE_DISK_GB": "2"}
    settings = load(tmp_path, text, environ=environ, flags={"machine.disk_gb": 3, "machine.cpus": None})
    assert (settings.machine.cpus, settings.machine.memory_gb, settings.machine.disk_gb) == (1, 2, 3)


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert load(tmp_path, 'provider = "docker"\n', environ={"TLVM_PROVIDER": ""}).provider == "docker"


def test_the_file_is_found_in_a_folder_above_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / config.FILE).write_text('[store]\nurl = "store"\n', encoding="utf-8")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    settings = load(below)
    assert settings.folder == tmp_path
    assert settings.store_ref.url == str(tmp_path / "store")
    assert settings.records_dir == tmp_path / ".tlvm"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('provder = "local"\n', ["provder", "provider"]),
        ("[machine]\ndisk_bg = 3\n", ["machine.disk_bg", "machine.disk_gb"]),
        ("[machin]\ndisk_gb = 3\n", ["machin", "machine"]),
        ('provider = "dokcer"\n', ["dokcer", "docker"]),
        ("[machine]\nmax_hours = 200\n", ["machine.max_hours", "168"]),
        ('[machine]\nname = "../../etc"\n', ["machine.name", "../../etc"]),
        ("machine = 3\n", ["machine", "section"]),
        ("file = 'x'\n", ["file"]),
        ("[run]\nseed = 'one'\n", ["run.seed", "one"]),
        (
            "[scenarios.fixed-extractor]\nfold = 3\n",
            ["scenarios.fixed-extractor.fold'", "Did you mean 'folds'"],
        ),
        ("[scenarios.fixed-extractr]\n", ["scenarios.fixed-extractr", "Did you mean 'fixed-extractor'"]),
        ("[scenarios.fixed-extractor]\nfolds = 99\n", ["scenarios.fixed-extractor", "folds", "2 to 20"]),
        ("[scenario.fixed-extractor]\nfolds = 3\n", ["'scenario'", "Did you mean 'scenarios'"]),
        ("[run]\nfolds = 3\n", ["run.folds", "[scenarios.NAME]", "[scenarios.fixed-extractor]"]),
        ("provider = \n", ["not valid TOML", "line 1"]),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert config.FILE in message
    for part in said:
        assert part in message
    assert caught.value.next


def test_what_is_wrong_elsewhere_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="environment variable TLVM_MACHINE_CPUS"):
        load(tmp_path, environ={"TLVM_MACHINE_CPUS": "many"})
    with pytest.raises(ConfigError, match="--machine"):
        load(tmp_path, flags={"machine.name": "No Such"})
    with pytest.raises(ConfigError, match="--max-hours"):
        load(tmp_path, flags={"machine.max_hours": -1})


def test_a_variable_that_is_no_setting_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TLVM_MACHINE_MAX_HOUR is no setting") as caught:
        load(tmp_path, environ={"TLVM_MACHINE_MAX_HOUR": "2"})
    assert "'TLVM_MACHINE_MAX_HOURS'" in caught.value.next
    empty_or_of_machines = {"TLVM_NONSENSE": "", "TLVM_MACHINE": "a", "TLVM_MACHINE_ID": "b"}
    assert load(tmp_path, environ=empty_or_of_machines).machine.max_hours is None


def test_parameters_of_scenarios_pass_through(tmp_path: Path) -> None:
    assert load(tmp_path, "[scenarios.fixed-extractor]\nfolds = 7\n").scenarios == {
        "fixed-extractor": {"folds": 7}
    }


def test_machine_names_carry_owner_and_project(tmp_path: Path) -> None:
    folder = tmp_path / "Trees 2026"
    folder.mkdir()
    assert load(folder, 'owner = "Ana María"\n').machine_name == "tlvm-ana-mar-a-trees-2026"


def test_names_in_other_scripts_keep_apart(tmp_path: Path) -> None:
    names = {load(tmp_path, f'owner = "{owner}"\n').owner_label for owner in ("Ана", "Ольга", "美咲")}
    assert len(names) == 3
    assert all(name.isascii() and name.isalnum() for name in names)


@pytest.mark.parametrize("name", ["tlvm.toml", "docker.toml", "bucket.toml"])
def test_the_examples_are_valid_and_begin_with_their_command(tmp_path: Path, name: str) -> None:
    text = (shipped("configs") / name).read_text(encoding="utf-8")
    assert text.startswith("# ") and "tlvm " in text.splitlines()[0]
    load(tmp_path, text)


def test_the_commented_example_names_only_keys_that_exist_with_their_defaults(tmp_path: Path) -> None:
    text = (shipped("configs") / "tlvm.toml").read_text(encoding="utf-8")
    opened = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    settings = load(tmp_path, opened)
    assert settings.run == config.RunSettings()
    named = {line.removeprefix("# ").split(" = ")[0] for line in text.splitlines() if " = " in line}
    for key in ("provider", "owner", "url", "max_hours", "model", "weights", "seed"):
        assert key in named


def test_every_setting_has_a_variable() -> None:
    variables = config.variables()
    assert variables["machine.disk_gb"] == "TLVM_MACHINE_DISK_GB"
    assert variables["provider"] == "TLVM_PROVIDER"
    assert len(set(variables.values())) == len(variables)


def test_a_default_that_is_written_out_is_the_same_setting(tmp_path: Path) -> None:
    """What `up` compares is text: "0" in one place and "0.0" in another would be a conflict."""
    written = load(tmp_path, "[machine]\ncpus = 0\nmemory_gb = 0\n[run]\nmax_hours = 24\n")
    assert str(written.machine) == str(config.MachineSettings())
    assert str(written.run) == str(config.RunSettings())
