"""Checking a model: its contract and its Python files together, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.errors import ContractError
from seatrial.model_check import check_model
from seatrial.training.check import check_candidates
from support.small_model import CONTRACT, FEATURES, write_model

REPOSITORY = Path(__file__).parents[2]


def problems(tmp_path: Path, *, contract: str = CONTRACT, features: str = FEATURES) -> str:
    """Check a wrong model and return what is said."""
    path = write_model(tmp_path, contract=contract, features=features, rows=1)
    with pytest.raises(ContractError) as caught:
        check_model(str(path))
    return caught.value.message.replace(str(path.parent), "visits")


def test_the_models_of_the_repository_are_right() -> None:
    """The example checks, and so does the small model of these tests."""
    for contract in (REPOSITORY / "models").glob("*/model.yaml"):
        assert check_model(str(contract)).contract.name == contract.parent.name


def test_a_right_model_checks(tmp_path: Path) -> None:
    """No problem is told where there is none."""
    assert check_model(str(write_model(tmp_path, rows=1))).contract.name == "visits"


IN_FEATURES = {
    "a part of no table": (
        'Lookup("shops"',
        'Lookup("shop"',
        "there is no table 'shop'. Did you mean 'shops'?",
    ),
    "a column of no table": ('{"price": "price"}', '{"price": "cost"}', "the table has no column 'cost'"),
    "a key that no request brings": (
        'Latest("prices", by=("shop",)',
        'Latest("prices", by=("price",)',
        "is by 'price', which no request brings",
    ),
    "a time that is none": ('time="seen_at"', 'time="price"', "'price' must be of type time. It is number."),
    "a value that is no number": (
        'value="returned"',
        'value="shop"',
        "'shop' must be of type boolean or integer or number. It is string.",
    ),
    "an instant that no request brings": (
        'known_at=pl.col("at")',
        'known_at=pl.col("returned_at")',
        "known_at: reads 'returned_at', which no request brings",
    ),
    "the label as a feature": (
        '"amount": pl.col("amount")',
        '"amount": pl.col("returned").cast(int)',
        "expressions.amount: reads 'returned', which no request brings",
    ),
    "a feature with an input's name": (
        'columns={"price": "price"}',
        'columns={"items": "price"}',
        "items: is an input's name",
    ),
    "the mean over all rows": (
        'pl.col("amount")',
        'pl.col("amount").mean()',
        "expressions.amount: gives a row another value beside other rows",
    ),
    "the mean over a group": (
        'pl.col("amount")',
        'pl.col("amount").mean().over("shop")',
        "beside other rows",
    ),
    "the row before": ('pl.col("amount")', 'pl.col("amount").shift(1)', "beside other rows"),
    "the rank": ('pl.col("amount")', 'pl.col("amount").rank()', "beside other rows"),
    "an instant from other rows": (
        'pl.col("at"),\n',
        'pl.col("at").max(),\n',
        "known_at: gives a row another value",
    ),
}


@pytest.mark.parametrize("case", IN_FEATURES)
def test_what_features_py_may_not_read(tmp_path: Path, case: str) -> None:
    """Tables, columns, keys and times that do not fit the contract, and whatever else a row cannot know."""
    old, new, message = IN_FEATURES[case]
    assert old in FEATURES
    features = FEATURES.replace(old, new)

    found = problems(tmp_path, features=features)

    assert found.startswith("visits/features.py: ")
    assert message in found


def test_a_key_must_have_one_type_on_both_sides(tmp_path: Path) -> None:
    """A join of a number with a text finds nothing, or fails in the middle of a run."""
    contract = CONTRACT.replace(
        "shop: {type: string, required: true}\n      region",
        "shop: {type: integer, required: true}\n      region",
    )

    assert "is by 'shop', which is integer in the table and string in a request" in problems(
        tmp_path, contract=contract
    )


def test_what_the_contract_names_must_be_made(tmp_path: Path) -> None:
    """A feature or slice that does not exist is told with its line and the nearest name."""
    contract = CONTRACT.replace(
        "slices: [shop]", "slices: [shopp]\nfeatures: {use: [amount, hours, back_share_1d]}"
    )

    found = problems(tmp_path, contract=contract)

    assert "features.use: there is no feature 'hours'. Did you mean 'hour'?" in found
    assert "model.yaml:51: slices: there is no input or feature 'shopp'. Did you mean 'shop'?" in found


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("FEATURES = (", "features.py:1: cannot be executed: SyntaxError"),
        ("x = 1\nimport nothing_of_that_name\n", "features.py:2: cannot be executed: ModuleNotFoundError"),
        ("x = 1\n\nx / 0\n", "features.py:3: cannot be executed: ZeroDivisionError"),
        ("import sys\nsys.exit()\n", "features.py:2: cannot be executed: SystemExit"),
        ("", "must define 'FEATURES', and does not"),
        ("FEATURES = {}", "FEATURES: must be Features. Got dict."),
        (
            "from seatrial.features import Features\n\nFEATURES = Features(expressions={'x': 1})\n",
            "features.py:3: FEATURES: The expression 'x' must be a polars expression",
        ),
        ("x = '\0'", "cannot be executed"),
    ],
    ids=["syntax", "import", "error", "exit", "nothing", "something else", "wrong features", "zero byte"],
)
def test_a_feature_file_that_cannot_be_used(tmp_path: Path, features: str, message: str) -> None:
    """The message has the line of the file, also when the error came from within the library."""
    assert message in problems(tmp_path, features=features)


def test_a_feature_file_that_is_not_there(tmp_path: Path) -> None:
    """The contract alone is no model."""
    path = write_model(tmp_path, rows=1)
    (path.parent / "features.py").unlink()

    with pytest.raises(ContractError, match="features.py: does not exist, but 'FEATURES' is wanted from it"):
        check_model(str(path))


def test_a_prepare_function_that_is_not_there(tmp_path: Path) -> None:
    """A contract that names a function has a prepare.py that defines it."""
    contract = CONTRACT.replace("    key: [visit]", "    prepare: visits\n    key: [visit]")

    assert "prepare.py: does not exist, but 'visits' is wanted" in problems(tmp_path, contract=contract)


CANDIDATES = {
    "an estimator that there is not": (
        "sklearn.linear_model.LogisticRegression",
        "sklearn.linear_model.LogisticRegresion",
        "names an estimator that scikit-learn does not have",
    ),
    "a module that there is not": (
        "sklearn.linear_model.LogisticRegression",
        "sklearn.linear_modell.LogisticRegression",
        "names an estimator that scikit-learn does not have",
    ),
    "a parameter that there is not": (
        "encoding: one_hot",
        "encoding: one_hot\n    parameters: {Cc: 1}",
        "unexpected keyword argument 'Cc'",
    ),
    "a tuned parameter that there is not": (
        "encoding: one_hot",
        "encoding: one_hot\n    search: {Cc: {low: 1, high: 2}}",
        "unexpected keyword argument 'Cc'",
    ),
    "a function that there is not": (
        "sklearn.linear_model.LogisticRegression",
        "estimators.py:make",
        "estimators.py: does not exist, but 'make' is wanted from it",
    ),
}


@pytest.mark.parametrize("case", CANDIDATES)
def test_candidates_that_cannot_be_made(tmp_path: Path, case: str) -> None:
    """A mistyped estimator or parameter is told with its line, before any data are read."""
    old, new, message = CANDIDATES[case]
    loaded = check_model(str(write_model(tmp_path, contract=CONTRACT.replace(old, new), rows=1)))

    with pytest.raises(ContractError, match=r"model.yaml:44: candidates.0: ") as caught:
        check_candidates(loaded)
    assert message in caught.value.message


def test_candidates_that_can_be_made(tmp_path: Path) -> None:
    """Bounds, choices and functions of the model's own are tried once."""
    search = "search: {C: {low: 0.1, high: 2}, max_iter: {low: 5, high: 9, integer: true}, penalty: {choices: [l2]}}"
    contract = CONTRACT.replace("encoding: one_hot", f"encoding: one_hot\n    {search}")
    check_candidates(check_model(str(write_model(tmp_path, contract=contract, rows=1))))

    path = write_model(
        tmp_path,
        contract=CONTRACT.replace("sklearn.linear_model.LogisticRegression", "estimators.py:make"),
        rows=1,
    )
    (path.parent / "estimators.py").write_text("from sklearn.dummy import DummyClassifier as make\n")
    check_candidates(check_model(str(path)))


def test_model_code_has_its_own_rules(tmp_path: Path) -> None:
    """A model's file is compiled without what this library's files import from ``__future__``."""
    features = "def f(x: int): ...\nassert f.__annotations__['x'] is int\n" + FEATURES

    assert check_model(str(write_model(tmp_path, features=features, rows=1)))
