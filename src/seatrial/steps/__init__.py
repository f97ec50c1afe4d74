"""The steps of the pipelines: plain, typed functions from files to files.

``components/`` makes each a Kubeflow Pipelines component and ``pipelines/`` composes them; the
very same functions run under ``kfp.local`` on a laptop and in a pod on a cluster. A step reads its
inputs from paths, writes its outputs to paths, keeps nothing in memory between runs, and may be run
again after a kill at any moment: what it writes to the workspace is create-only or one commit.
"""

from seatrial.steps.data import ingest_data, make_features, split_rows, validate_data
from seatrial.steps.judging import Evaluated, RunFiles, evaluate_model, judge_model
from seatrial.steps.release import bundle_model, register_model, write_report
from seatrial.steps.training import train_model
from seatrial.steps.watching import decide_retraining, monitor_model

__all__ = [
    "Evaluated",
    "RunFiles",
    "bundle_model",
    "decide_retraining",
    "evaluate_model",
    "ingest_data",
    "judge_model",
    "make_features",
    "monitor_model",
    "register_model",
    "split_rows",
    "train_model",
    "validate_data",
    "write_report",
]
