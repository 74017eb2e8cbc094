"""Untrusted text is escaped in terminals, spreadsheets, HTML and Markdown."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mnist_lightning.cli.console import make_console, show_line, show_table
from mnist_lightning.data.image_folder import load_folder
from mnist_lightning.deployment import model_card
from mnist_lightning.errors import UserError
from mnist_lightning.evaluation import plots
from mnist_lightning.inference import Recognizer
from mnist_lightning.networks.classic_cnn import ClassicCNN
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import as_csv, code_span, markdown, printable, say
from tests.conftest import Command
from tests.images import draw_seven

HOSTILE = "\x1b]8;;http://evil\x07x\x9b31m\u202egnp.exe\u2066\u200b\udc80\r\n[red]`"
anything = st.text(st.characters(codec=None))


@given(anything)
def test_printable_text_has_no_control_characters(text: str) -> None:
    escaped = printable(text)
    assert not re.search(
        "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]", escaped
    )
    assert printable(escaped) == escaped
    escaped.encode()


@given(anything, anything, st.text("\n\t\x1b"))
def test_each_character_is_escaped_by_itself(first: str, second: str, keep: str) -> None:
    assert printable(first + second, keep) == printable(first, keep) + printable(second, keep)
    assert printable(keep, keep) == keep


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_letters_of_all_scripts_are_unchanged(text: str) -> None:
    assert printable(text) == text


def test_control_characters_are_shown_as_escapes() -> None:
    assert printable("a\x1b[2J\u202e\udc80\n") == r"a\x1b[2J\u202e\udc80\n"
    assert printable("a\nb\t", keep="\n") == "a\nb\\t"


@given(anything)
def test_any_text_can_be_printed_in_any_encoding(text: str) -> None:
    for encoding in ("ascii", "utf-8", "latin-1"):
        buffer = io.BytesIO()
        stream = io.TextIOWrapper(buffer, encoding)
        say(text, file=stream)
        stream.flush()
        assert b"\x1b" not in buffer.getvalue()


@given(st.lists(st.tuples(anything, st.integers(-5, 5)), max_size=5))
def test_text_in_a_csv_is_not_a_formula_and_numbers_are_unchanged(
    rows: list[tuple[str, int]],
) -> None:
    read = list(csv.reader(io.StringIO(as_csv(("name", "count"), rows))))[1:]
    assert [row[1] for row in read] == [str(count) for _, count in rows]
    assert not any(row[0].lstrip().startswith(("=", "+", "-", "@")) for row in read)


@given(anything)
def test_a_code_span_ends_only_at_its_end(text: str) -> None:
    span = code_span(text)
    fence = re.match("`+", span)
    assert fence is not None
    inside = span[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in re.findall("`+", inside)
    assert "\n" not in span


@given(anything)
def test_markdown_leaves_no_markup(text: str) -> None:
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>#|&]", markdown(text))
    assert "\n" not in markdown(text)


def metadata_with(text: str) -> dict[str, object]:
    summary = {
        "dataset": text,
        "checksum": text,
        "seed": text,
        "versions": {text: text},
        "commit": text,
        "extra_checksums": {text: ""},
    }
    metadata = model_card.metadata(summary, Recognizer(ClassicCNN()))
    metadata["network"] = {"class_path": f"a.{text}", "init_args": {text: text}}
    return metadata


@pytest.mark.parametrize("format", ["pth", "safetensors", "onnx", "int8", "pt2", "html"])
def test_a_model_card_contains_no_markup_of_a_summary(format: str) -> None:
    text = '```\n\n# Free\n<img src=x>[a](javascript:b)\n~~~"""\n{{ 1 }}'
    card = model_card.card(metadata_with(text), format, 'a".`"x.pth', "logits", "equal")
    prose = re.sub(r"^```\w+\n.*?^```$", "", card, flags=re.DOTALL | re.MULTILINE)
    outside = re.sub(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", prose, flags=re.DOTALL)
    for hostile in (r"^# Free", r"(?<!\\)<img", r"(?<!\\)\[a", "^~~~"):
        assert not re.search(hostile, outside, re.MULTILINE), hostile
    (code,) = re.findall(r"^```\w+\n(.*?)^```$", card, flags=re.DOTALL | re.MULTILINE)
    if format != "html":
        compile(code, "card", "exec")


def test_a_page_contains_no_markup_of_a_summary() -> None:
    from mnist_lightning.text import fill_template

    text = "</script><script>alert(1)</script>\u2028<!--"
    page = fill_template(
        "deployment/static/index.html",
        offline=True,
        about=metadata_with(text) | {"made_by": f'"{text}'},
        summary=text,
        style="",
        model=json.dumps({"a": text}).replace("<", "\\u003c"),
        reading="",
        terms=[],
        seen="",
    )
    assert "<script>alert" not in page
    assert "<!--" not in page


def test_a_console_prints_markup_as_text() -> None:
    out = io.StringIO()
    console = make_console()
    assert console.render_str("[red]x[/red] :bug:").plain == "[red]x[/red] :bug:"
    console = Console(file=out, markup=False, emoji=False, width=200)
    show_table(console, "a[red]", [("run", f"[link=http://evil]x[/link] {HOSTILE}")])
    show_line(console, f"[bold]{HOSTILE}")
    assert "[link=http://evil]x[/link]" in out.getvalue()
    assert not re.search("[\x00-\x09\x0b-\x1f\x80-\x9f\u202e]", out.getvalue())


def test_dollar_signs_are_not_a_formula_in_a_figure() -> None:
    histories = {"$\\frac{$": {"val/loss": [1.0, 0.5]}, "_hidden": {"val/loss": [1.0]}}
    assert plots.png(plots.overlay_curves(histories)).startswith(b"\x89PNG")


def make_hostile_run(run: Run) -> None:
    run.checkpoints.mkdir(parents=True)
    summary = {"dataset": HOSTILE, "network": {"class_path": f"a.{HOSTILE}"}, "state": HOSTILE}
    (run.folder / "summary.json").write_text(json.dumps(summary))


def test_listing_and_errors_are_printable(command: Command, run_0: Run) -> None:
    make_hostile_run(run_0)
    for arguments in (["runs"], ["runs", "--csv"], ["test", "9"], ["test", f"x{HOSTILE}"]):
        result = command(*arguments)
        printed = result.out + result.err
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066\u200b]", printed)
        assert printed
    assert json.loads(command("runs", "--json").out)


@pytest.mark.commands
def test_file_names_are_printable_in_every_form(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    (pictures / "3").mkdir(parents=True)
    name = os.fsencode(pictures) + b"/3/\x1b[31m\xff\n\xe2\x80\xae.png"
    Path(os.fsdecode(name)).write_bytes(b"no image")
    (pictures / "=1+1.png").write_bytes(b"no image")
    script = (
        "import sys, torch; from mnist_lightning import inference\n"
        "from mnist_lightning.networks.classic_cnn import ClassicCNN\n"
        "inference.load = lambda *_: inference.Recognizer(ClassicCNN())\n"
        "from mnist_lightning.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    for form in ([], ["--csv"], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-c", script, "predict", "pictures", *form],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1
        assert (
            done.stderr
            == b"the confidence is not calibrated; give a run instead of a checkpoint file\n"
        )
        text = done.stdout.decode()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
        if form == ["--json"]:
            files = [row["file"] for row in json.loads(text)]
            assert os.fsdecode(name).removeprefix(f"{tmp_path}/") in files
        if form == ["--csv"]:
            rows = list(csv.DictReader(io.StringIO(text)))
            assert r"\x1b[31m\udcff\n\u202e.png" in rows[0]["file"]
    draw_seven().save(pictures / "3" / "seven.png")
    _, notice = load_folder(pictures, 0.2)
    assert notice is not None
    assert r"\x1b[31m\udcff\n\u202e.png" in notice
    assert "\x1b" not in notice


def test_the_error_for_an_invalid_folder_is_printable(tmp_path: Path) -> None:
    (tmp_path / "\x1b[2J").mkdir()
    with pytest.raises(UserError) as raised:
        load_folder(tmp_path, 0.2)
    assert "\x1b" not in str(raised.value)
