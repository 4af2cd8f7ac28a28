"""Files are there whole, or as they were."""

import threading

import pytest

from lowbit._beside import beside


def test_an_error_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write_half():
        with beside(path) as file:
            file.write_text("aft")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_nothing_is_there_before_the_end(tmp_path):
    path = tmp_path / "a.txt"
    with beside(path) as file:
        file.write_text("half")
        assert file.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "half"


def test_writers_at_once_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    together = threading.Barrier(4)

    def write(letter):
        with beside(path) as file:
            file.write_text(letter * 1000)
            together.wait()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in {letter * 1000 for letter in "abcd"}
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
