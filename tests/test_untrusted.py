"""Guards between parsers and the user."""

from __future__ import annotations

import codecs
import doctest
import json
import os
import socket
import time

import pytest

from napari_cpnn import decimals, errors, untrusted
from napari_cpnn.errors import SlideError, SpotsError
from napari_cpnn.untrusted import check_in_child, parse_json, read_json, reading, require_memory, to_path


@pytest.fixture(autouse=True)
def warm_child():
    """Children are started as the package does: they are what is tested here."""


@pytest.mark.parametrize("module", [untrusted, decimals, errors], ids=lambda m: m.__name__)
def test_the_examples_are_true(module):
    assert doctest.testmod(module, optionflags=doctest.IGNORE_EXCEPTION_DETAIL).failed == 0


@pytest.mark.parametrize(
    "raised", [ValueError("a\nb"), KeyError("x"), RecursionError(), MemoryError(), OSError(5, "Input/output error")]
)
def test_whatever_a_parser_raises_becomes_one_line(raised):
    with (
        pytest.raises(SlideError, match=r"^a\.svs cannot be read \(.+\); is it complete\?$"),
        reading("a.svs", SlideError),
    ):
        raise raised


def test_our_own_errors_and_interrupts_pass_a_guard():
    with pytest.raises(SpotsError, match=r"^mine$"), reading("a", SlideError):
        raise SpotsError("mine")
    with pytest.raises(KeyboardInterrupt), reading("a", SlideError):
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["a\0b.svs", "x" * 300, "y/" * 3000])
def test_impossible_names_are_refused_in_a_sentence(name):
    with pytest.raises(SlideError) as caught:
        to_path(name, SlideError)
    assert len(str(caught.value)) < 250


def test_a_missing_file_is_no_impossible_name(tmp_path):
    assert to_path(tmp_path / "missing", SlideError) == tmp_path / "missing"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_nothing_is_read_from_a_pipe_a_socket_or_a_device(tmp_path):
    pipe = tmp_path / "a.json"
    os.mkfifo(pipe)
    link = tmp_path / "link.json"
    link.symlink_to(pipe)
    for path in (pipe, link):
        for read in (to_path, read_json):
            with pytest.raises(SlideError, match=r"is a pipe, not a file; choose a file\.$"):
                read(path, SlideError)
        with pytest.raises(SlideError, match="is a pipe"), reading(path, SlideError):
            raise AssertionError
    with pytest.raises(SlideError, match="is a device"):
        to_path(os.devnull, SlideError)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "s"))
        with pytest.raises(SlideError, match="is a socket"):
            to_path(tmp_path / "s", SlideError)


def test_a_folder_that_may_not_be_looked_into(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(SlideError, match=r"cannot be opened: Permission denied\."):
        to_path(tmp_path / "a.svs", SlideError)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_of_common_encodings(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({"a": "µ"}, ensure_ascii=False).encode(encoding))
    assert read_json(path, SpotsError) == {"a": "µ"}


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b"", b"\xe4\xf6", codecs.BOM_UTF16_LE + b"a", b"1" * 10_000]
)
def test_wrong_json_is_one_sentence(content):
    with pytest.raises(SpotsError, match=r"^a cannot be read \(.+\); is it a JSON file\?$"):
        parse_json(content, "a", SpotsError)


def test_more_than_memory_is_refused():
    require_memory(1000, "a", SlideError)
    with pytest.raises(SlideError, match="more than this computer has memory for"):
        require_memory(2**60, "a", SlideError)


def test_a_child_that_hangs_crashes_or_refuses():
    assert check_in_child("import sys; print(sys.argv[1])", ["x"], "a", SlideError, seconds=30).strip() == "x"
    start = time.monotonic()
    with pytest.raises(SlideError, match="could not be made out"):
        check_in_child("while True: pass", [], "a", SlideError, seconds=1)
    with pytest.raises(SlideError, match="could not be made out"):
        check_in_child("import time; time.sleep(60)", [], "a", SlideError, seconds=0.2)
    assert time.monotonic() - start < 20
    with pytest.raises(SlideError, match="ended the process"):
        check_in_child("import os; os.abort()", [], "a", SlideError, seconds=30)
    with pytest.raises(SlideError, match=r"\(no rows\)"):
        check_in_child("raise SystemExit('no rows')", [], "a", SlideError, seconds=30)
    with pytest.raises(SlideError, match="MemoryError"):
        check_in_child("bytearray(10**9)", [], "a", SlideError, seconds=30, memory_mb=256)


@pytest.mark.parametrize("text", ["nan", "inf", "1_000", "1,234.5", "1.2.3", "", "0x1", "1 000", "١", "--1"])
def test_what_is_no_decimal_number(text):
    with pytest.raises(ValueError, match="is not a decimal number"):
        decimals.parse_decimal(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0,5", 0.5), ("0.5", 0.5), ("1", 1), (",5", 0.5), ("2.", 2), ("-1e-3", -0.001), ("1,9872", 1.9872)],
)
def test_decimal_numbers_of_both_separators(text, value):
    assert decimals.parse_decimal(text) == value


def test_what_a_file_puts_into_a_message_stays_one_bearable_line():
    told = str(SlideError(f"/a/é 1.svs has no\r\n\ttag {'9' * 9000}\u202e\x00; get the file again."))
    assert told.isprintable()
    assert len(told) == errors.MAX_LENGTH
    assert told.startswith("/a/é 1.svs has no tag 999")
    assert told.endswith("999 ; get the file again.")
    assert str(SlideError("It  is short.")) == "It  is short."
