"""The configuration: every problem at once, keys named, odd paths ordinary."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from stylegate import config, configcheck, files, rundirectory
from stylegate.cli import quote_text_value, valid_overrides_and_problems
from stylegate.errors import ConfigError
from stylegate.verbs import VERBS
from tests.conftest import command, composed_by_hydra, composed_once, process


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("lora.rnk=4", "lora.rnk: unknown key; did you mean lora.rank?"),
        ("refs=./brand", "refs: unknown key; did you mean references?"),
        ("max_step=4", "max_step: unknown key; did you mean train.max_steps?"),
        ("+lora.rnk=4", "lora.rnk: unknown key"),
        ("++typo=1", "typo: unknown key"),
        ("~lora.rank", "cannot be deleted"),
        ("lora.rank=many", "lora.rank=many"),
        ("lora.rank=2.5", "lora.rank=2.5"),
        ("lora.rank=0", "lora.rank=0: must lie in [1, 1024]"),
        ("train.learning_rate=nan", "train.learning_rate=nan: must lie in"),
        ("train.learning_rate=inf", "must lie in"),
        ("lora.targets=[attention,heart]", "lora.targets=['attention', 'heart']: must be among"),
        ("lora.targets=[]", "lora.targets=[]: must not be empty"),
        ("tracker.mode=sometimes", "tracker.mode=sometimes: must be one of ['online', 'offline', 'disabled']"),
        (
            "family=unheard",
            "family must be one of ['flux', 'flux2', 'krea2', 'qwenimage', 'qwenimage21', 'sd', 'sd15', 'sd3', 'sdxl', "
            "'zimage']",
        ),
        ("experiment=unheard", "experiment must be one of ['demo']"),
        ("hardware.device=", "hardware.device"),
        ("x==[", "not of the form key=value"),
        ("brand", "not of the form key=value"),
    ],
)
def test_bad_words_are_named(run_exactly, word: str, says: str) -> None:
    code, text = run_exactly("train", "brand=neon", word)
    assert code == 2 and says in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate", "plan.num_images=16"], "plan.num_images: generate does not read it; it is read by plan, "),
        (["train", "lora_file=nowhere.safetensors"], "lora_file: train does not read it; it is read by plan, gen"),
        (["gate", "images=a", "plan.num_wanted=3"], "plan.num_wanted: gate does not read it"),
        (["brand", "tracker=wandb"], "tracker: brand does not read it; it is read by train, gate, run"),
        (["train", "--multirun", "brand=neon", "lora.rank=4,8", "observe=true"], "observe: train does not read it"),
        (["gate", "images=a", "images=b"], "images: given twice, images='a' and images='b'"),
        (["train", "brand=neon", "lora=all", "+lora=attention"], "lora: given twice"),
        (["gate", "images=a", "import=x.csv"], "- import: gate does not read it; it is read by plan\n"),
        (["plan", "import=import_file.csv", "+import=b"], "import: given twice, import='import_file.csv' and +imp"),
        (["plan", "imprt=x.csv"], "imprt: unknown key; did you mean import?"),
        (["plan", "brand=neon", "plan.num_wanted=65"], "more than plan.num_images=64; give both"),
        (["export", "batch=a", "out=pkg"], "out=pkg: export reads it with images= alone. The results of a batch lie"),
        (["gate", "brand=neon", "out=b"], "out=b: gate reads it with images= alone"),
        (["train", "brand=neon", "lora.rank=4,8"], "lora.rank=4,8: several values need --multirun"),
    ],
)  # fmt: skip
def test_words_that_would_do_nothing_are_refused(run_exactly, words: list[str], says: str) -> None:
    code, text = run_exactly(*words)
    assert code == 2 and says in text and text.count("error:") == 1, text


@pytest.mark.parametrize("verb", [verb for verb, entry in VERBS.items() if entry.keys])
def test_an_experiment_has_keys_for_every_verb(verb: str) -> None:
    assert valid_overrides_and_problems(verb, ["experiment=demo"], sweep=False) == (["experiment=demo"], [])


def test_all_problems_come_together(run_exactly) -> None:
    code, text = run_exactly(
        "train", "brand=neon", "lora.rnk=4", "+typo=1", "lora.rank=x", "train.batch_size=0", "family=no"
    )
    assert code == 2
    for part in ("lora.rnk", "typo", "lora.rank=x", "train.batch_size=0", "family=no"):
        assert part in text
    assert text.count("error:") == 1


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "a,b",
        "[x]",
        "{y: 1}",
        "k=v",
        "it's",
        "tail\\",
        "\\'",
        "${name}",
        "\\${name}",
        "a\\\\${name}'",
        '"q"',
        "ünï",
        "(p)",
        "a:b",
    ],
)
def test_odd_paths_are_ordinary(value: str) -> None:
    override = OverridesParser.create().parse_override(quote_text_value(f"images={value}"))
    assert OmegaConf.create({"images": override.value()}).images == value


@pytest.mark.parametrize("word", ["010", "1e3", "1_000", "true", "é", "0x1f", "nan", "1,2", "off", "Null"])
@pytest.mark.parametrize("key", ["name", "brand", "accept_licence", "tracker.project"])
def test_texts_are_used_as_they_are_written(key: str, word: str) -> None:
    """Hydra's grammar reads 1e3 as 1000.0, 1_000 as 1000 and true as True; é is an error."""
    override = OverridesParser.create().parse_override(quote_text_value(f"{key}={word}"))
    composed = OmegaConf.structured(config.Config)
    OmegaConf.update(composed, key, override.value())
    assert OmegaConf.select(composed, key) == word


def test_texts_of_a_sweep_are_used_as_they_are_written() -> None:
    assert quote_text_value("brand=010,1e3,é,null", sweep=True) == "brand='010','1e3','é',null"
    for left_alone in ("brand=choice(a,b)", "lora.rank=4,8", "brand='a b',c"):
        assert quote_text_value(left_alone, sweep=True) == left_alone


def test_help_and_cfg_never_wait_for_torch() -> None:
    for arguments in (["--help"], ["train", "--help"], ["train", "--cfg", "job"]):
        words = json.dumps(arguments)
        code = f"import sys; from stylegate.cli import main; main({words}); sys.exit('torch' in sys.modules)"
        assert process_python(code).returncode == 0


def process_python(code: str):
    import subprocess

    return subprocess.run([command()[0], "-c", code], capture_output=True, text=True, timeout=60)


def test_a_user_error_is_one_message_and_exit_2() -> None:
    done = process("train", "brand=neon", "lora.rnk=1")
    assert done.returncode == 2 and "Traceback" not in done.stderr and "executing job" not in done.stderr


def test_under_a_launcher_one_process_speaks_of_wrong_words(run_exactly, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "0")
    code, text = run_exactly("train", "brand=neon", "lora.rnk=1")
    assert code == 2 and text.count("lora.rnk") == 1 and text.splitlines()[-1].startswith("The error above is")
    monkeypatch.setenv("RANK", "1")
    assert run_exactly("train", "brand=neon", "lora.rnk=1") == (2, "")
    assert run_exactly("check", "brand=./nowhere") == (2, "")
    code, text = run_exactly("brand", "name=a", "images=/nowhere")
    assert code == 2 and text.count("\n") == 1 and text.startswith("rank 1: error: images=/nowhere")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["experiment=demo", "brand='a b, [c]'", "lora=attention", "lora.rank=4", "train.max_steps=7"],
        ["hardware=cpu", "tracker=wandb", "family=flux2", "family.resolution=64", "lora.targets=[attention]"],
        ["+train.max_steps=3", "++observe=true", "images=null", "train.scales=[0.8,1]"],
        ["lora=attention", "lora.rank=many"],
        ["train.unheard=1"],
    ],
)
def test_the_tests_compose_as_hydra_does(words: list[str]) -> None:
    ConfigStore.instance().store(name="schema", node=config.Config)

    def outcome(compose) -> object:
        try:
            return configcheck.checked_config(compose(words), [])
        except (HydraException, ConfigError) as error:
            return type(error), str(error)

    assert outcome(composed_once) == outcome(composed_by_hydra)


def test_unknown_verb_and_no_words(run_exactly) -> None:
    code, text = run_exactly("paint")
    assert code == 2 and "did you mean" not in text
    assert "Next: did you mean trial or train? one of brand, " in run_exactly("trian", "brand=neon")[1]
    code, text = run_exactly("train", "nonsense=1")
    assert code == 2 and text.endswith("Next: stylegate train --help lists its keys.\n")
    assert run_exactly("train")[0] == 2
    assert run_exactly()[0] == 0


def test_a_brand_that_is_the_current_folder_has_that_folders_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "acme" / "train")
    monkeypatch.setenv("HOME", str(tmp_path / "acme"))
    for brand, name in ((".", "train"), ("./", "train"), ("..", "acme"), ("~", "acme"), ("/", "unnamed")):
        assert config.run_or_batch_name(config.Config(brand=brand)) == name, brand
    assert config.run_or_batch_name(config.Config(brand="hub:owner/acme")) == "acme"


def test_run_name_covers_what_changes_weights(tmp_path: Path) -> None:
    def name(**changes) -> str:
        made = config.Config(brand="neon")
        for dotted, value in changes.items():
            part, _, leaf = dotted.partition("__")
            setattr(getattr(made, part), leaf, value) if leaf else setattr(made, part, value)
        return rundirectory.run_directory_name(made)

    same = [{}, {"train__max_steps": 900}, {"train__checkpoint_every": 7}, {"tracker__name": "wandb"}]
    same.append({"lora__alpha": 16.0})  # the rank, as without it
    other = [{"lora__rank": 8}, {"train__learning_rate": 1e-4}, {"train__seed": 1}, {"base": "x"}, {"lora__alpha": 8.0}]
    other.append({"hardware__precision": "bf16"})
    assert len({name(**c) for c in same}) == 1
    assert len({name(**c) for c in same[:1] + other}) == 7


def test_waiting_threads_spin_little_unless_the_user_says_otherwise() -> None:
    """Set before torch is loaded, which reads it then."""
    code = "import os, sys; from stylegate import cli; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | {"PYTHONPATH": str(files.ROOT)}
    for given, spins in (({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")):
        done = subprocess.run([sys.executable, "-c", code], env=environment | given, capture_output=True, text=True)
        assert done.stdout.split() == [spins, "False"], done.stderr
