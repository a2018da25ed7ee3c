import pytest

from paywatch.cli import output
from paywatch.cli.output import show_fields, show_table

ID = "01a1f89d-2682-72a5-a4bb-6fbb904b2ad9"
HASH = "2d5cb0b2822c1dc73c6e568a2070a9042e227adfde82883c3b19045464f53529"


def test_a_long_value_stays_in_one_line_so_that_it_can_be_copied(
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = "web+stellar:pay?destination=" + "A" * 500

    show_fields({"id": ID, "payment_uri": uri, "reference": None, "note": ""})

    assert capsys.readouterr().out.splitlines() == [f"id           {ID}", f"payment uri  {uri}"]


def test_sentences_of_a_table_are_wrapped_and_ids_never_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "WIDE", 80)

    show_table("records", ("id", "what"), [(ID, "a sentence of many words " * 6)])

    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.count("sentence") == 6
    assert ID in printed


def test_a_table_too_wide_for_the_screen_is_printed_as_blocks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "WIDE", 80)

    show_table("payments", ("id", "tx hash", "excess"), [(ID, HASH, None), (ID, HASH, "0.5")])

    block = [f"id       {ID}", f"tx hash  {HASH}"]
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["payments", "", *block, "", *block, "excess   0.5", ""]


def test_a_memo_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("credits", ("memo",), [("[bold]\x1b[2J\n",)])

    assert r"[bold]\x1b[2J\n" in capsys.readouterr().out
