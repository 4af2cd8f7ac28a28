"""How commands begin and end."""

import os
import subprocess
import sys

import pytest

import lowbit
from lowbit.cli import main
from lowbit.cli._main import COMMANDS

NAMES = [module.__name__.rpartition(".")[2] for module in COMMANDS]


@pytest.mark.parametrize("command", NAMES)
def test_help_says_what_the_command_does_with_examples(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m lowbit {command}" in text
    assert "--json" in text


def test_the_examples_of_help_are_commands_that_are_understood():
    from lowbit.cli._main import _parser

    for module in COMMANDS:
        for line in (module.__doc__ or "").splitlines():
            if line.startswith("  python -m lowbit"):
                assert _parser().parse_args(line.split()[3:]).run is module.run


@pytest.mark.parametrize("words", [[], ["sumary"], ["bench"], ["bench", "LeNet", "--batch", "0"]])
def test_wrong_use_ends_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: lowbit")


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"lowbit {lowbit.__version__}\n"


def test_python_m_lowbit_is_the_command_and_a_reader_may_close_early():
    command = [sys.executable, "-m", "lowbit", "quantizers", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_a_terminal_without_unicode_gets_question_marks():
    command = [sys.executable, "-m", "lowbit", "quantizers", "sign"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "QConv2d(?, " in done.stdout
