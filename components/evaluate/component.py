"""Step 6: evaluate on rows never seen, beside the champion and doing nothing."""

from kfp import dsl

from components import step


@step
def evaluate(
    model: str,
    workspace: str,
    environment: str,
    fitted: dsl.Input[dsl.Model],
    test: dsl.Input[dsl.Dataset],
    versions: dsl.Input[dsl.Artifact],
    evaluation: dsl.Output[dsl.Artifact],
    figures: dsl.Output[dsl.Metrics],
    curves: dsl.Output[dsl.ClassificationMetrics],
) -> None:
    """Evaluate the model on the test rows, beside the model that serves now and a constant.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        environment: The environment whose model is the champion.
        fitted: The model.
        test: The test rows.
        versions: The data version of this run.
        evaluation: All figures with their intervals, slices and curves.
        figures: The figures on the test rows.
        curves: ROC curve and confusion matrix.
    """
    from seatrial.steps.judging import evaluate_model

    found = evaluate_model(
        model, workspace, environment, fitted.path, test.path, versions.path, evaluation.path
    )
    for name, value in found.figures.items():
        figures.log_metric(name, value)
    curves.log_roc_curve(found.false_positive_rates, found.true_positive_rates, found.thresholds)
    curves.log_confusion_matrix(["no", "yes"], found.confusion)
