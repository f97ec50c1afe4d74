"""Step 4: divide the rows by time."""

from kfp import dsl

from components import step


@step
def split(
    model: str,
    dataset: dsl.Input[dsl.Dataset],
    training: dsl.Output[dsl.Dataset],
    validation: dsl.Output[dsl.Dataset],
    test: dsl.Output[dsl.Dataset],
) -> None:
    """Divide the rows by time, never at random, into training, validation and test rows.

    Args:
        model: Name of the model, whose contract is in the image.
        dataset: Features and labels.
        training: The rows to fit on.
        validation: The rows after them, to tune and choose by.
        test: The last rows, for evaluation and gates alone.
    """
    from seatrial.steps.data import split_rows

    split_rows(model, dataset.path, training.path, validation.path, test.path)
