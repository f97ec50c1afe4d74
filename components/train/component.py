"""Step 5: tune the candidates, choose the simplest that is good enough, and fit it."""

from kfp import dsl

from components import step


@step
def train(
    model: str,
    training: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Dataset],
    fitted: dsl.Output[dsl.Model],
    figures: dsl.Output[dsl.Metrics],
) -> None:
    """Tune the contract's candidates within their budget, choose one and fit it.

    Args:
        model: Name of the model, whose contract is in the image.
        training: The rows to fit on.
        validation: The rows to tune and choose by.
        fitted: The model as ONNX and skops, with its schema, drift baseline and training facts.
        figures: Each candidate's validation metric, and what training cost in time and energy.
    """
    from seatrial.steps.training import train_model

    for name, value in train_model(model, training.path, validation.path, fitted.path).items():
        figures.log_metric(name, value)
