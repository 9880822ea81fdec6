"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from latent3d.io import atomic
from latent3d.io.atomic import check_output_folder, output_file, output_folder, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_with_ordinary_permissions(tmp_path):
    write_text(tmp_path / "new/a.txt", "schön")
    assert (tmp_path / "new/a.txt").read_text(encoding="utf-8") == "schön"
    (tmp_path / "plain").write_text("x")
    assert stat.S_IMODE((tmp_path / "new/a.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert names(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("broken"), OSError(errno.ENOSPC, "No space left")])
def test_interrupted_file_leaves_the_old_one(tmp_path, error):
    write_bytes(tmp_path / "a.bin", b"old")

    def write() -> None:
        with output_file(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_full_disk_is_reported_with_the_file_name(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, the device that is always full")

    def write() -> None:
        with output_file(tmp_path / "a.bin"), open("/dev/full", "wb") as full:
            full.write(b"x" * 10_000)

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "a.bin")
    assert names(tmp_path) == []


def test_file_over_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "a", "x")


def test_folder_appears_whole(tmp_path):
    with output_folder(tmp_path / "deep/out") as place:
        assert not (tmp_path / "deep/out").exists()
        write_text(place / "card.json", "{}")
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep/out") == ["card.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_interrupted_folder_leaves_nothing(tmp_path, error):

    def write() -> None:
        with output_folder(tmp_path / "deep/out") as place:
            write_text(place / "a.txt", "half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert names(tmp_path) == []


def test_earlier_result_is_replaced_only_when_asked_and_only_by_a_whole_one(tmp_path):
    out = tmp_path / "out"
    with output_folder(out) as place:
        write_text(place / "card.json", "{}")
        write_text(place / "old.txt", "old")
    with pytest.raises(ValueError, match="already holds a result; add --overwrite"), output_folder(out):
        pytest.fail("the folder must not be entered")
    with pytest.raises(KeyboardInterrupt), output_folder(out, overwrite=True) as place:
        raise KeyboardInterrupt
    assert names(out) == ["card.json", "old.txt"]
    with output_folder(out, overwrite=True) as place:
        write_text(place / "card.json", "{}")
    assert names(out) == ["card.json"]
    assert names(tmp_path) == ["out"]


def test_interruption_between_the_two_moves_puts_the_old_folder_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with output_folder(out) as place:
        write_text(place / "card.json", "{}")
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    def write() -> None:
        with output_folder(out, overwrite=True) as place:
            (place / "card.json").write_text("new")
            monkeypatch.setattr(atomic.os, "replace", replace)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert (out / "card.json").read_text() == "{}"
    assert names(tmp_path) == ["out"]


def test_foreign_folders_and_files_are_never_touched(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/diary.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="did not write"):
            check_output_folder(tmp_path / "home", overwrite)
    with pytest.raises(ValueError, match="is a file"):
        check_output_folder(tmp_path / "home/diary.txt")
    (tmp_path / "empty").mkdir()
    with output_folder(tmp_path / "empty") as place:
        write_text(place / "card.json", "{}")
    assert names(tmp_path) == ["empty", "home"]


def test_unwritable_place():
    if not Path("/proc/version").exists():
        pytest.skip("needs a file system that refuses writes even to root (/proc)")
    with pytest.raises(OSError, match="/proc"):
        check_output_folder("/proc/latent3d/out")
