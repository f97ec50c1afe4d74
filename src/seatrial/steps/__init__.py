"""The steps of the pipelines: plain, typed functions from files to files.

``components/`` makes each a Kubeflow Pipelines component and ``pipelines/`` composes them; the
very same functions run under ``kfp.local`` on a laptop and in a pod on a cluster. A step reads its
inputs from paths, writes its outputs to paths, keeps nothing in memory between runs, and may be run
again after a kill at any moment: what it writes to the workspace is create-only or one commit.

Nothing is imported here: a step's process imports what that step needs, from its own module.
"""
