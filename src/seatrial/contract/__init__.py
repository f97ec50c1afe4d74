"""The contract of a model, ``models/NAME/model.yaml``: everything else is derived from it.

:mod:`seatrial.contract.schema` says what a contract may hold and what each key means; the
reference page is rendered from it. :mod:`seatrial.contract.load` reads a file and refuses a wrong
one before anything runs, naming every problem with its line.
"""

from seatrial.contract.load import LoadedContract, find_contract, load_contract, parse_contract
from seatrial.contract.schema import Contract

__all__ = ["Contract", "LoadedContract", "find_contract", "load_contract", "parse_contract"]
