"""The container, as far as no engine is needed: what is copied, what is pinned, who runs. The image is not built."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from stylegate import files


def instructions() -> list[tuple[str, str]]:
    """(COPY, rest) and so on, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (files.ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1].strip()) for line in lines if line.strip()]


def all_of(name: str) -> list[str]:
    return [rest for kind, rest in instructions() if kind == name]


def sources() -> list[str]:
    return [source for rest in all_of("COPY") for source in rest.split()[:-1]]


def in_context(path: str) -> bool:
    """Whether .dockerignore lets a file through: the last pattern that it or a folder above it matches decides."""
    parts = path.split("/")
    paths = ["/".join(parts[:i]) for i in range(1, len(parts) + 1)]
    kept = True
    for line in (files.ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, part) for part in paths):
            kept = line.startswith("!")
    return kept


def tracked(*under: str) -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z", "--", *under], cwd=files.ROOT, capture_output=True, check=True)
    return [name for name in done.stdout.decode().split("\0") if name]


def test_what_the_image_copies_is_there() -> None:
    for source in sources():
        assert (files.ROOT / source).exists() and tracked(source), source
    for rest in all_of("COPY"):
        *given, target = rest.split()
        poured = target == "./" and all((files.ROOT / source).is_file() for source in given)
        assert poured or given == [target], "a folder keeps its name; COPY would pour out its content"


def test_the_image_has_all_that_is_shipped_and_nothing_else() -> None:
    shipped = tracked(*sources())
    assert len(shipped) > 400 and all(in_context(name) for name in shipped), [n for n in shipped if not in_context(n)]
    project = tomllib.loads((files.ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]
    needed = [f"{package.replace('.', '/')}/__init__.py" for package in packages]
    needed += [
        project["project"]["readme"],
        "eval/report/report.html.j2",
        "stylegate/look.css",
        *(f"eval/reviewing/page/{name}" for name in ("review.html", "review.css", "review.js", "icon.svg")),
        "data/policies/default.yaml",
        "conf/config.yaml",
    ]
    needed += [f"checkpoints/miniature/{name}" for name in ("clip/open_clip_model.safetensors", "sd/model_index.json")]
    for name in needed:
        assert (files.ROOT / name).is_file() and in_context(name), name
        assert any(name == source or name.startswith(f"{source}/") for source in sources()), name
    for made in (
        *(".env", ".git/config", ".venv/bin/python", ".cache/features.sqlite", "secrets.txt", "tests/conftest.py"),
        *("checkpoints/acme-sd-s0-1234/run.json", "data/batches/x/gate.json", "data/exports/acme-v1/images/a.png"),
        *(
            "data/brands/acme/train/0001.png",
            "eval/__pycache__/gate.pyc",
            "stylegate.egg-info/PKG-INFO",
            "eval/.a.1.tmp",
        ),
    ):
        assert not in_context(made), made


def test_the_image_installs_the_pins() -> None:
    text = " ".join(rest for kind, rest in instructions() if kind == "RUN")
    pins = re.findall(r"pip install [^&]*-c (\S+)", text)
    assert pins == ["constraints.txt"] and (files.ROOT / pins[0]).is_file() and pins[0] in sources()
    kinds = [f"{kind} {rest}" for kind, rest in instructions()]
    copied = next(i for i, line in enumerate(kinds) if "constraints.txt" in line and line.startswith("COPY"))
    assert copied < next(i for i, line in enumerate(kinds) if "-c constraints.txt" in line)
    listing = re.search(r'python -c "([^"]+)" > (\S+)', text)
    assert listing and f"-r {listing[2]}" in text
    done = subprocess.run(
        [sys.executable, "-c", listing[1].replace("\\\\n", "\\n")],
        cwd=files.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = tomllib.loads((files.ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert done.stdout.splitlines() == wanted and "torch" in done.stdout


def test_the_image_runs_the_cli_as_nobody_special() -> None:
    entry = json.loads(all_of("ENTRYPOINT")[0]) + json.loads(all_of("CMD")[0])
    scripts = tomllib.loads((files.ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts[entry[0]].partition(":")
    assert getattr(importlib.import_module(module), function)(entry[1:]) == 0
    (base,), (user,), (volume,) = all_of("FROM"), all_of("USER"), all_of("VOLUME")
    assert base == "python:3.12-slim" and user not in ("root", "0")
    environment = dict(word.split("=", 1) for rest in all_of("ENV") for word in rest.split())
    for name in ("STYLEGATE_HOME", "HOME", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        assert Path(environment[name]).is_relative_to(volume), name
    assert f"install -d -m 1777 {volume}" in " ".join(all_of("RUN")), "docker run -u gives any user"
    assert all_of("WORKDIR")[-1] == "/lot" and [kind for kind, _ in instructions()][-2:] == ["ENTRYPOINT", "CMD"]
    assert not re.search("(?i)token|secret|password", (files.ROOT / "Dockerfile").read_text())


def test_the_docs_say_what_was_not_run() -> None:
    text = (files.ROOT / "docs" / "pipelines.md").read_text()
    assert "The action has not run on GitHub's machines, and we have not built or run the image yet." in text
    assert "We have not built or run the [Dockerfile](../Dockerfile) yet." in text
