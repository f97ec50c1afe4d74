"""Save the model as MLflow's server loads it: ``mlflow_save.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow.pyfunc

mlflow.pyfunc.save_model(
    sys.argv[1],
    python_model=str(Path(__file__).with_name("mlflow_model.py")),
    pip_requirements=["mlflow", "onnxruntime"],
)
