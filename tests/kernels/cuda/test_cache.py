"""Machine code on disk: read where it was made before, made again where it is damaged."""

from pathlib import Path

import pytest

from lowbit.kernels.cuda import _cache


@pytest.fixture
def calls() -> list[tuple[object, ...]]:
    return []


@pytest.fixture
def make(calls, tmp_path, monkeypatch):
    monkeypatch.setenv("LOWBIT_CACHE", str(tmp_path / "a" / "b"))

    @_cache.kept
    def made(*arguments: object) -> bytes:
        calls.append(arguments)
        return f"code of {arguments}".encode()

    return made


def test_the_same_arguments_are_made_once(make, calls):
    first = make("text", (("N", 1),), "sm_90")
    assert make("text", (("N", 1),), "sm_90") == first == b"code of ('text', (('N', 1),), 'sm_90')"
    assert make("text", (("N", 2),), "sm_90") != first
    assert make("text", (("N", 1),), "sm_80") != first
    assert len(calls) == 3


def test_a_damaged_file_is_made_again(make, calls, tmp_path):
    first = make("text")
    (file,) = (tmp_path / "a" / "b").iterdir()
    for content in (b"", file.read_bytes()[:-1], b"x" + file.read_bytes()[1:]):
        file.write_bytes(content)
        assert make("text") == first
        assert make("text") == first
    assert len(calls) == 4
    assert list(file.parent.iterdir()) == [file]


def test_nothing_is_kept_where_nothing_can_be(make, calls, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOWBIT_CACHE", str(tmp_path / "file" / "folder"))
    assert make("text") == make("text")
    monkeypatch.setenv("LOWBIT_CACHE", "")
    assert make("text") == make("text")
    assert len(calls) == 4
    assert not (tmp_path / "a").exists()


def test_a_write_that_fails_leaves_nothing_behind(make, calls, tmp_path, monkeypatch):
    def full(self, target):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    assert make("text") == make("text")
    assert len(calls) == 2
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("LOWBIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _cache.folder() == tmp_path / "lowbit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _cache.folder() == tmp_path / "home" / ".cache" / "lowbit"
