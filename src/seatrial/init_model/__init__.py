"""A new model from a file: look at the data, propose a contract, and prove that it can be trained.

Whatever is proposed is checked by the very functions that training calls, on the very rows, before
anything is written under the model's name. What cannot be known from the data (whether a column is
known at the time of a prediction, what a mistake costs) is proposed and marked in a comment.
"""

from seatrial.init_model.create import Created, init_model

__all__ = ["Created", "init_model"]
