"""Files: whole or not at all, torn lines, full disks."""

import ctypes
import os
import resource
import sqlite3
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from eval.lot.batch import names_of_attempts_with_picture
from eval.planning.collection import json_files_below
from stylegate import files
from stylegate.errors import ConfigError, DataError, SurroundingsError, error_for_user
from tests.conftest import FAST_ALL_LAYERS, exit_code, forks, merged

CLONE_NEWNS = 0x00020000  # of unshare(2): mounts of its own


def test_write_replaces_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    files.write_atomically(target, "old")

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(target, "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_write_never_touches_the_old_content(tmp_path: Path) -> None:
    """A second name for the old file still reads the old content: the new one came by rename, not over it."""
    target, witness = tmp_path / "a.json", tmp_path / "witness"
    files.write_atomically(target, "old")
    witness.hardlink_to(target)
    files.write_atomically(target, "new")
    assert (target.read_text(), witness.read_text()) == ("new", "old")


def test_folder_whole_or_not_at_all(tmp_path: Path) -> None:
    def build(partial: Path) -> None:
        (partial / "half").write_text("x")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.write_folder_atomically(tmp_path / "made", build)
    assert list(tmp_path.iterdir()) == []


def test_torn_last_line_is_left_out_but_a_broken_middle_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert files.read_jsonl(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(DataError, match="line 2"):
        files.read_jsonl(path)


def test_a_last_line_without_its_end_stays_if_it_is_whole(tmp_path: Path) -> None:
    """What was read before the next row is read after it; only a torn line goes."""
    path = tmp_path / "x.jsonl"
    for last, kept in (('{"a": 2}', [{"a": 1}, {"a": 2}]), ('{"a": 2', [{"a": 1}])):
        path.write_text('{"a": 1}\n' + last)
        assert files.read_jsonl(path) == kept
        files.append_jsonl(path, {"a": 3})
        assert files.read_jsonl(path) == [*kept, {"a": 3}]


def test_appending_reads_one_byte_of_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n' * 200_000)
    tracemalloc.start()
    files.append_jsonl(path, {"a": 2})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000 < path.stat().st_size and path.read_bytes().endswith(b'\n{"a": 2}\n')
    (tmp_path / "empty.jsonl").touch()
    files.append_jsonl(tmp_path / "empty.jsonl", {"a": 3})
    assert files.read_jsonl(tmp_path / "empty.jsonl") == [{"a": 3}]


def test_rows_that_the_disk_takes_in_part_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nearly full disk takes the first bytes, and write(2) says so by its answer alone."""
    whole = os.write
    monkeypatch.setattr(os, "write", lambda place, content: whole(place, content[:3]))
    with pytest.raises(OSError, match="No space left") as caught:
        files.append_in_one_write(tmp_path / "x.jsonl", '{"a": 1}\n')
    assert "no space left on the disk" in str(error_for_user(caught.value))


def test_digest_is_canonical() -> None:
    """RFC 8785, 3.2.3: keys sorted, numbers as ECMAScript prints them; NaN has no form."""
    assert files.canonical_sha256({"b": 1.0, "a": 1e-7}) == files.canonical_sha256({"a": 0.0000001, "b": 1})
    import hashlib

    assert (
        files.canonical_sha256({"b": [1, "ü"], "a": 0.5})
        == hashlib.sha256('{"a":0.5,"b":[1,"ü"]}'.encode()).hexdigest()
    )
    with pytest.raises(ValueError):
        files.canonical_sha256({"a": float("nan")})


def test_folder_digest_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = files.folder_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = files.folder_digest(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, files.folder_digest(tmp_path)}) == 3


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, refused: set[Path]) -> None:
    """Of a glob it would be one: pictures of a batch, earlier packages and weights would be passed over."""
    images = tmp_path / "images"
    for name in ("00001-0.png", "0001/02500-0.png", "b.txt"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(b"x")
    assert files.sorted_paths_matching_pattern(images, "[!.]*.png") == [images / "00001-0.png"]
    assert files.sorted_paths_matching_pattern(images / "not there", "*") == []
    assert names_of_attempts_with_picture(images) == ["00001-0.png", "0001/02500-0.png"]
    refused.add(images / "0001")
    with pytest.raises(PermissionError, match="0001"):
        names_of_attempts_with_picture(images)
    for read in (
        files.folder_digest,
        lambda folder: files.sorted_paths_matching_pattern(folder, "*"),
        json_files_below,
    ):
        with pytest.raises(PermissionError, match="0001"):
            read(images / "0001")


def test_surroundings_are_told_from_bugs() -> None:
    assert "no space" in str(error_for_user(OSError(28, "x", "/f")))
    assert "the cache" in str(error_for_user(sqlite3.OperationalError("database or disk is full")))
    assert "no file can be made here: /proc/x" in str(error_for_user(OSError(2, "x", "/proc/x")))
    assert "does not allow this name: a:b" in str(error_for_user(OSError(22, "x", "a:b")))
    bugs = [OSError(2, "x"), OSError(2, "x", "/f"), OSError(22, "x"), OSError("x"), ValueError()]
    assert [error_for_user(bug) for bug in bugs] == [None] * len(bugs)


@pytest.fixture
def shipped_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two places for policies, own and shipped; `plain` is shipped. The working directory has files of other names."""
    own, shipped, here = (tmp_path / name for name in ("own", "shipped", "here"))
    for place in (own, shipped, here):
        place.mkdir()
    (shipped / "plain.yaml").touch()
    monkeypatch.chdir(here)
    return [own, shipped]


def test_a_file_in_the_working_directory_never_stands_for_a_name(shipped_thing: list[Path]) -> None:
    own, shipped = shipped_thing
    for name in ("plain", "plain.yaml", "acme"):
        Path(name).touch()
    for word, meant in {
        "plain": shipped / "plain.yaml",
        "./plain": Path("plain").resolve(),
        "plain.yaml": Path("plain.yaml").resolve(),
        f"{shipped}/plain.yaml": shipped / "plain.yaml",
    }.items():
        assert files.resolve_name_or_path(word, [own, shipped], "policy", ".yaml") == meant
    with pytest.raises(ConfigError, match=r"write \./acme .* or choose one of plain, or give a path"):
        files.resolve_name_or_path("acme", [own, shipped], "policy", ".yaml")
    Path("mine.yaml").touch()
    with pytest.raises(ConfigError, match=r"write \./mine\.yaml for the one in the working directory"):
        files.resolve_name_or_path("mine", [own, shipped], "policy", ".yaml")
    for word in ("", "./nowhere", "shipped/../plain"):
        with pytest.raises(ConfigError, match="policy="):
            files.resolve_name_or_path(word, [own, shipped], "policy", ".yaml")


def test_a_path_with_a_slip_names_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    for name in ("mine.yaml", "other.txt", "own/prompts.txt"):
        (tmp_path / name).touch()
    for value, step in {
        "./mien.yaml": "did you mean ./mine.yaml?",
        "mien.yaml": "did you mean mine.yaml?",
        f"{tmp_path}/mien.yaml": f"did you mean {tmp_path}/mine.yaml?",
        "own/promts.txt": "did you mean own/prompts.txt?",
        "./xyz": "check the path.",
        "nowhere/mine.yaml": "check the path.",
        "./": "check the path.",
    }.items():
        assert files.advice_on_missing_path(value) == step, value
    with pytest.raises(ConfigError, match=r"did you mean \./mine\.yaml\?"):
        files.resolve_name_or_path("./mien.yaml", [], "traits", ".yaml")


def test_an_own_thing_never_hides_a_shipped_one_of_the_same_name(shipped_thing: list[Path]) -> None:
    own, shipped = shipped_thing
    (own / "plain.yaml").touch()
    with pytest.raises(ConfigError, match=r"two meanings: .*own/plain\.yaml and .*shipped/plain\.yaml"):
        files.resolve_name_or_path("plain", [own, shipped], "policy", ".yaml")
    assert files.resolve_name_or_path("plain", [shipped, shipped], "policy", ".yaml") == shipped / "plain.yaml"


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    refused = pytest.raises(SurroundingsError, match="another stylegate is at work")
    with (
        files.exclusive_lock(tmp_path / "a"),
        files.exclusive_lock(tmp_path / "b"),
        refused,
        files.exclusive_lock(tmp_path / "a"),
    ):
        pass
    with files.exclusive_lock(tmp_path / "a"):
        pass


@pytest.mark.parametrize("text", ["[]", "null", "{}", "{", "\ufeff{}", "[" * 9000])
def test_json_of_another_form_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match="the record"):
        files.read_json(tmp_path / "x.json", "the record", "facts")
    (tmp_path / "x.jsonl").write_text(f'{text}\n{{"file": 1}}\n')
    with pytest.raises(DataError, match="line 1"):
        files.read_jsonl(tmp_path / "x.jsonl", "file")


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "[" * 9000, "d: 2001-13-45", "- a", "? [a]\n: 1", "!!python/name:os.system"]
)
def test_yaml_of_another_form_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(DataError, match="policy"):
        files.read_yaml(tmp_path / "x.yaml", "policy")


def test_numbers_of_yaml_are_those_of_json(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "a: [5e-2, 6e0, 10, -0.5, .inf, true]\nb: [010, 1_000, 12:30, 0x1F]\nc:\nd: null\n"
    )
    assert files.read_yaml(tmp_path / "x.yaml", "policy") == {
        "a": [0.05, 6.0, 10, -0.5, float("inf"), True],
        "b": ["010", "1_000", "12:30", "0x1F"],
        "c": None,
        "d": None,
    }
    words = files.read_yaml(tmp_path / "x.yaml", "traits", words=True)
    assert words == {
        "a": ["5e-2", "6e0", "10", "-0.5", ".inf", "true"],
        "b": ["010", "1_000", "12:30", "0x1F"],
        "c": None,
        "d": "null",
    }


def test_line_separators_in_text_end_no_row(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\u0085c"}, {"text": "d"}]
    files.write_jsonl(tmp_path / "x.jsonl", rows)
    assert files.read_jsonl(tmp_path / "x.jsonl", "text") == rows


def test_disk_that_refuses_to_take_more_is_one_message(run, trained: list[str]) -> None:
    """The kernel's file-size limit stops the adapter's file half way: exit 2, no half state; one can go on."""
    words = [*trained, "name=limited"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))  # bytes
    try:
        code, text = run("train", *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2 and "file-size limit" in text and "Traceback" not in text, text
    place = next(files.RUNS.glob("limited-*"))
    assert not list((place / "state").glob("*")) or not any("partial" in p.name for p in (place / "state").iterdir())
    assert not list(place.rglob("*.safetensors"))
    assert run("train", *words)[0] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root; the file-size limit above needs none")
def test_full_disk_is_one_message(small_brand: Path, tmp_path: Path) -> None:
    """A real 2 MB disk, in a mount namespace of its own: a fork's."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not allowed here; the file-size limit above is the same path")

    def mount() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        for words in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", "size=2m", "none", str(files.RUNS)]):
            subprocess.run(["mount", *words], check=True)

    files.RUNS.mkdir(exist_ok=True)
    words = merged("brand=small", *FAST_ALL_LAYERS, "name=crowded", "train.max_steps=2")
    (pid,) = forks("train", *words, output=tmp_path / "printed", before=mount)
    code, text = exit_code(pid), (tmp_path / "printed").read_text()
    assert code == 2 and "no space left on the disk" in text and "Traceback" not in text, text
    assert not list(files.RUNS.glob("crowded-*")), "it was on the other disk"


def test_home_can_lie_elsewhere(tmp_path: Path) -> None:
    code = "from stylegate import files; print(files.RUNS, files.MODELS)"
    env = os.environ | {"STYLEGATE_HOME": str(tmp_path), "PYTHONPATH": str(files.ROOT)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env).stdout.split()
    assert out == [str(tmp_path / "checkpoints"), str(files.ROOT / "checkpoints")]
