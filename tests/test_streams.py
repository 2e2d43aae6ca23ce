"""A stream that cannot be written is no reason to stop: what is lost is remembered, what waits is delivered."""

import errno
import io
import logging
import os
import sys
import threading

import pytest

from odenet_cli import streams


@pytest.fixture
def stdout(monkeypatch):
    """Standard output on a descriptor of one's own."""

    def put(descriptor, encoding="utf-8"):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(os.fdopen(descriptor, "wb"), encoding))
        streams.secure()
        return sys.stdout

    return put


def test_a_full_disk_is_remembered_and_may_be_forgotten(stdout):
    stdout(os.open("/dev/full", os.O_WRONLY))
    for line in range(3):
        print(line, flush=True)
    assert streams.unprinted().errno == errno.ENOSPC
    streams.forget_lost_output()
    assert streams.unprinted() is None


def test_a_reader_that_left_is_no_loss(stdout):
    reader, writer = os.pipe()
    os.close(reader)
    stdout(writer)
    print("to nobody", flush=True)
    assert streams.unprinted() is None


def test_a_stream_set_not_to_wait_is_waited_for(stdout):
    """A pipe holds 64 KiB; a megabyte arrives whole."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    stream, text, arrived = stdout(writer), "0123456789abcdef" * 2**16, []
    thread = threading.Thread(target=lambda: arrived.append(os.fdopen(reader).read()))
    thread.start()
    print(text, end="", flush=True)
    assert streams.unprinted() is None
    os.close(stream.fileno())
    thread.join()
    assert arrived == [text]


def test_what_an_encoding_lacks_is_spelled(stdout, tmp_path):
    stdout(os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT), "ascii")
    print("±0.1 é \udce9", flush=True)
    assert (tmp_path / "out").read_text() == "\\xb10.1 \\xe9 \\udce9\n"


def test_secured_twice_is_secured_once(stdout):
    first = stdout(os.open(os.devnull, os.O_WRONLY))
    streams.secure()
    assert sys.stdout is first


def test_what_hydra_says_is_broken_between_words_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    record = logging.LogRecord(
        "hydra", logging.INFO, "", 0, "\t#0 : model=cnf solver.rtol=0.01 model.units=8", (), None
    )
    formatter = streams.Wrapped("%(message)s")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert formatter.format(record) == "#0 : model=cnf solver.rtol=0.01\nmodel.units=8"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert formatter.format(record) == "#0 : model=cnf solver.rtol=0.01 model.units=8"


def test_a_warning_is_broken_between_words_and_a_command_in_it_is_not(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    text = "a sentence that is longer than that\n  odenet eval last data.path=/some/long/file.csv"
    record = logging.LogRecord("odenet", logging.WARNING, "", 0, text, (), None)
    formatter = streams.WrappedWarning()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    told = formatter.format(record).splitlines()
    assert told == ["a sentence that is longer than", "that", "  odenet eval last data.path=/some/long/file.csv"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert formatter.format(record) == text
