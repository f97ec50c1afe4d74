"""Contracts: every wrong one is refused with the line and what would be right."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.contract import find_contract, load_contract, parse_contract
from seatrial.contract.load import MAXIMUM_BYTES
from seatrial.errors import ContractError, UsageError
from support.small_model import CONTRACT, write_model

PATH = Path("visits/model.yaml")


def problems_of(text: str) -> list[tuple[str, int | None, str]]:
    """Parse a wrong contract and return the places, lines and messages of its problems."""
    with pytest.raises(ContractError) as caught:
        parse_contract(text, PATH)
    return [(problem.place, problem.line, problem.message) for problem in caught.value.problems]


def line_of(text: str, part: str) -> int:
    """Return the line (from 1) of a text in which ``part`` stands first."""
    return text[: text.index(part)].count("\n") + 1


def changed(old: str, new: str) -> str:
    """Return the small contract with one change, which must be possible."""
    assert old in CONTRACT
    return CONTRACT.replace(old, new, 1)


WRONG = {
    # What is changed: (old, new, place, part of the message, text in whose line it is)
    "an unknown key": ("owner:", "ownr: x\nowner:", "ownr", "Did you mean 'owner'?", "ownr:"),
    "an unknown key deep down": (
        "price: {type: number}",
        "price: {type: number, minimun: 0}",
        "tables.prices.columns.price.minimun",
        "Did you mean 'minimum'?",
        "minimun",
    ),
    "a wrong type": (
        "quarantine_share: 0.2",
        "quarantine_share: high",
        "tables.visits.quarantine_share",
        "valid number. Got 'high' instead.",
        "high",
    ),
    "a text for a boolean": (
        "required: true",
        "required: yes",
        "tables.visits.columns.visit.required",
        "valid boolean. Got 'yes' instead.",
        "required: yes",
    ),
    "a boolean for a number": (
        "minimum: 0,",
        "minimum: true,",
        "tables.visits.columns.amount.minimum",
        "valid number. Got True instead.",
        "minimum: true",
    ),
    "a number that is none": (
        "quarantine_share: 0.2",
        "quarantine_share: .nan",
        "tables.visits.quarantine_share",
        "finite number",
        ".nan",
    ),
    "a gate with no bound": (
        "calibration: {maximum: 0.5}",
        "calibration: {}",
        "gates.calibration.maximum",
        "this key is required: largest expected calibration error",
        "calibration: {}",
    ),
    "a gate with nothing behind it": (
        "calibration: {maximum: 0.5}",
        "calibration:",
        "gates.calibration",
        "has no value",
        "calibration:",
    ),
    "a missing section": ("costs: {", "cost: {", "costs", "this key is required", ""),
    "a source of no known kind": (
        "kind: file, path: data/shops",
        "kind: sql, path: data/shops",
        "tables.shops.source",
        "expected tags: 'file', 'package'",
        "kind: sql",
    ),
    "a source without a kind": (
        "kind: file, path: data/shops",
        "path: data/shops",
        "tables.shops.source",
        "the key 'kind' is required",
        "{path: data/shops",
    ),
    "a share that is none": (
        "validation: 20d",
        "validation: 1.5",
        "split.validation",
        "a share of the rows between 0 and 1. Got 1.5 instead.",
        "1.5",
    ),
    "a length of time in words": (
        "test: 20d",
        "test: 20 days",
        "split.test",
        "such as 28d",
        "20 days",
    ),
    "a pattern that is none": (
        '"^[A-Z]{2}$"',
        '"^[A-Z{2}$"',
        "tables.visits.columns.shop.pattern",
        "regular expression (unclosed character class)",
        "^[A-Z{2}$",
    ),
    "a rule that does not fit the type": (
        "price: {type: number}",
        "price: {type: number, allowed: [a]}",
        "tables.prices.columns.price",
        "allowed is a rule for columns of type string only",
        "allowed: [a]",
    ),
    "bounds the wrong way round": (
        "minimum: 0, maximum: 1000",
        "minimum: 9, maximum: 1",
        "tables.visits.columns.amount",
        "minimum must not be above maximum (9 > 1)",
        "minimum: 9",
    ),
    "half a search range": (
        "encoding: one_hot",
        "encoding: one_hot\n    search: {C: {low: 1}}",
        "candidates.0.search.C",
        "needs either low and high, or choices",
        "low: 1",
    ),
    "a search range the wrong way round": (
        "encoding: one_hot",
        "encoding: one_hot\n    search: {C: {low: 2, high: 1}}",
        "candidates.0.search.C",
        "low must be below high",
        "low: 2",
    ),
    "an estimator from anywhere": (
        "sklearn.linear_model.LogisticRegression",
        "os.system",
        "candidates.0.estimator",
        "should match pattern",
        "os.system",
    ),
    "a model's name with a slash": (
        "name: visits",
        "name: ../visits",
        "name",
        "should match pattern",
        "../visits",
    ),
    "a duplicate key": (
        "slices: [shop]",
        "slices: [shop]\nslices: [items]",
        "",
        "duplicate key",
        "slices: [items]",
    ),
    "an anchor": ("costs: {", "costs: &a {", "", "anchors and aliases are not allowed", "&a"),
    "a tag": ("owner: shop", "owner: !!python/object:os.system shop", "", "the tag", "!!python"),
    "a tab": ("    key: [visit]", "\tkey: [visit]", "", "'\\t'", "\tkey"),
    "an older YAML by directive": (
        "version: 1",
        "%YAML 1.1\n---\nversion: 1",
        "",
        "directives are not",
        "---",
    ),
    # Between the sections.
    "a label that is no column": (
        "column: returned,",
        "column: retorned,",
        "label.column",
        "has no column 'retorned'. Did you mean 'returned'?",
        "retorned",
    ),
    "a label that is a number": (
        "column: returned,",
        "column: amount,",
        "label.column",
        "must be boolean, or integer 0 and 1. Got number.",
        "column: amount",
    ),
    "an integer label without its bounds": (
        "returned: {type: boolean}",
        "returned: {type: integer}",
        "label.column",
        "give it minimum: 0 and maximum: 1",
        "label:",
    ),
    "a label's time that is none": (
        "returned_at: {type: time}",
        "returned_at: {type: string}",
        "label.time",
        "must be of type time. Got string.",
        "label:",
    ),
    "a label among the inputs": (
        "inputs: [visit, at,",
        "inputs: [visit, returned, at,",
        "prediction.inputs",
        "'returned' (label.column) is not known at the time of a prediction",
        "inputs:",
    ),
    "a key that is no input": (
        "inputs: [visit, at,",
        "inputs: [at,",
        "prediction.inputs",
        "must hold the table's key",
        "inputs:",
    ),
    "an input that is there twice": (
        "inputs: [visit, at,",
        "inputs: [visit, visit, at,",
        "prediction.inputs",
        "'visit' is there twice",
        "inputs:",
    ),
    "a time that is a text": (
        "at: {type: time, required: true}",
        "at: {type: string, required: true}",
        "tables.visits.time",
        "must be of type time. Got string.",
        "time: at",
    ),
    "a target that is no table": (
        "table: visits",
        "table: visit",
        "prediction.table",
        "must be one of the tables (visits, prices, shops). Got 'visit'.",
        "table: visit\n",
    ),
    "a reserved column": (
        "region: {type: string",
        "_batch: {type: string}\n      region: {type: string",
        "tables.shops.columns._batch",
        "this name is reserved",
        "_batch",
    ),
    "freshness without a time": (
        "    key: [shop]\n",
        "    key: [shop]\n    freshness: 2d\n",
        "tables.shops.freshness",
        "needs the table's time",
        "freshness",
    ),
    "slices that a gate needs": (
        "slices: [shop]",
        "slices: []",
        "gates.worst_slice",
        "needs slices to judge",
        "worst_slice",
    ),
    "two candidates of one name": (
        "costs: {missed",
        (
            "  - name: logistic_regression\n    estimator: sklearn.dummy.DummyClassifier\n    complexity: 1\n"
            "    encoding: ordinal\ncosts: {missed"
        ),
        "candidates",
        "'logistic_regression' is there twice",
        "candidates:",
    ),
    "a parameter that is fixed and searched": (
        "encoding: one_hot",
        "encoding: one_hot\n    parameters: {C: 1}\n    search: {C: {low: 1, high: 2}}",
        "candidates.0.search.C",
        "is fixed under parameters already",
        "search:",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_contract_is_refused_with_line_and_remedy(case: str) -> None:
    """Each mistake is named with its key, its line, and what would be right."""
    old, new, place, message, in_line = WRONG[case]
    text = changed(old, new)
    if "worst_slice" in in_line:
        text = text.replace("gates:", "gates:\n  worst_slice: {metric: roc_auc, minimum: 0.5}")

    found = problems_of(text)

    matching = [line for where, line, said in found if where == place and message in said]
    assert matching, found
    if in_line:
        assert matching == [line_of(text, in_line)]


def test_all_problems_are_told_at_once() -> None:
    """Ten mistakes are ten problems, in the order of their lines."""
    text = (
        changed("quarantine_share: 0.2", "quarantine_share: 2")
        .replace("type: integer", "type: whole")
        .replace("missed: 5", "missed: -5")
        .replace("complexity: 1", "complexity: 0")
        .replace("maximum: 0.5", "maximum: 7")
        .replace("owner: shop@example.com\n", "")
        .replace("validation: 20d", "validation: 0d")
        .replace("time: seen_at", "tme: seen_at")
        .replace("kind: file, path: data/prices.csv", "kind: file")
        .replace("metric: roc_auc", "metric: auc")
    )

    found = problems_of(text)

    assert len(found) == 10
    lines = [line or 0 for _, line, _ in found]
    assert lines == sorted(lines)


def test_problems_between_sections_are_told_at_once() -> None:
    """What is wrong between sections is collected like the rest."""
    text = changed("table: visits", "table: nowhere").replace("key: [shop]", "key: [shops]")

    assert {place for place, _, _ in problems_of(text)} == {"prediction.table", "tables.shops.key"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "- a list\n",
        "a text",
        "version: 1\n---\nversion: 1\n",
        CONTRACT + "x: " + "[" * 5_000 + "]" * 5_000,
        CONTRACT + "x: " + "{a: " * 3_000 + "}" * 3_000,
        CONTRACT + "x: \x00",
        CONTRACT + "x: " + "9" * 5_000,
        CONTRACT + "? [a, b]\n: c\n",
        CONTRACT + "? {a: b}\n: c\n",
        CONTRACT + "<<: {a: b}\n",
        "{{{{",
        "a: b: c",
        "\x1f\x8b\x08",
    ],
    ids=range(15),
)
def test_what_is_no_contract_at_all_is_refused(text: str) -> None:
    """Empty, deeply nested, malformed or binary texts are a contract's error, never a crash."""
    assert problems_of(text)


@settings(max_examples=80)
@given(st.text(max_size=200))
def test_no_text_crashes_the_loader(text: str) -> None:
    """Whatever the text, the answer is a contract or a contract's error."""
    with pytest.raises(ContractError):
        parse_contract(text, PATH)


@settings(max_examples=80)
@given(st.integers(0, len(CONTRACT)), st.integers(0, 30), st.text(max_size=5))
def test_no_damage_crashes_the_loader(place: int, cut: int, put: str) -> None:
    """A contract with some of its text cut out and replaced is read or refused."""
    text = CONTRACT[:place] + put + CONTRACT[place + cut :]
    with contextlib.suppress(ContractError):
        parse_contract(text, PATH)


def test_on_and_yes_stay_texts() -> None:
    """YAML 1.2: ``on``, ``yes`` and ``no`` are texts, as an allowed value such as NO for Norway is."""
    loaded = parse_contract(changed("allowed: [north, south]", "allowed: [on, yes, no, NO]"), PATH)

    assert loaded.contract.tables["shops"].columns["region"].allowed == ["on", "yes", "no", "NO"]


def test_a_fixed_parameter_may_be_nothing() -> None:
    """``null`` is a value where scikit-learn's None is one."""
    text = changed("encoding: one_hot", "encoding: one_hot\n    parameters: {class_weight: null}")

    assert parse_contract(text, PATH).contract.candidates[0].parameters == {"class_weight": None}


def test_column_names_are_free_texts() -> None:
    """Columns may have dots, quotes, spaces and scripts in their names."""
    name = """a.b "c" <script> 'd' é: #"""
    quoted = name.replace("'", "''")
    text = changed(
        "      items: {type: integer",
        f"      '{quoted}': {{type: string, minimum: 1}}\n      items: {{type: integer",
    )

    found = problems_of(text)

    assert found[0][0] == f"tables.visits.columns.{name}"
    assert found[0][1] == line_of(text, "a.b")


def test_a_contract_knows_its_digest_and_folder(tmp_path: Path) -> None:
    """The digest is that of the very text, and the folder the file's."""
    loaded = load_contract(write_model(tmp_path, rows=1))

    assert loaded.text == CONTRACT
    assert len(loaded.digest) == 64
    assert loaded.folder == tmp_path / "visits"


def test_the_name_must_be_the_folder_s(tmp_path: Path) -> None:
    """A contract that was copied to another folder is refused until its name is changed."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.yaml").write_text(CONTRACT)

    with pytest.raises(ContractError, match=r"must be the folder's name, 'other'. Got 'visits'"):
        load_contract(other)


def test_a_contract_of_two_megabytes_is_refused_unread(tmp_path: Path) -> None:
    """A contract has at most a megabyte."""
    path = write_model(tmp_path, rows=1)
    path.write_text(CONTRACT + "#" * 2_000_000)

    with pytest.raises(ContractError, match=f"at most {MAXIMUM_BYTES:,} bytes"):
        load_contract(path)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    """The message says where the first wrong byte is."""
    path = write_model(tmp_path, rows=1)
    path.write_bytes(b"# caf\xe9\n" + CONTRACT.encode())

    with pytest.raises(ContractError, match=r"must be UTF-8 text. Byte 5 is not."):
        load_contract(path)


def test_a_byte_order_mark_is_no_part_of_a_contract(tmp_path: Path) -> None:
    """Some editors put one before the text."""
    path = write_model(tmp_path, rows=1)
    path.write_text("\ufeff" + CONTRACT)

    assert load_contract(path).text == CONTRACT


def test_a_model_is_found_by_name_folder_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three ways to name a model find the same contract."""
    path = write_model(tmp_path, rows=1)
    monkeypatch.setenv("SEATRIAL_MODELS", str(tmp_path))

    assert find_contract("visits") == find_contract(str(path.parent)) == find_contract(str(path)) == path


def test_models_are_found_from_a_folder_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like git, the command line looks upwards for the folder of models."""
    path = write_model(tmp_path / "models", rows=1)
    below = tmp_path / "docs" / "notes"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    assert find_contract("visits") == path


def test_an_unknown_model_names_those_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped name is answered with the names that would have worked."""
    write_model(tmp_path, rows=1)
    monkeypatch.setenv("SEATRIAL_MODELS", str(tmp_path))

    with pytest.raises(UsageError, match=r"no model 'vizits'.*\(visits\)"):
        find_contract("vizits")
