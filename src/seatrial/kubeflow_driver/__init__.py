"""Decides what the steps of Kubeflow Pipelines need, without a pod for each decision.

Kubeflow Pipelines starts two pods for a step: a driver's, which works for a third of a second (it looks up the
step's inputs and writes the patch of its pod), and the step's own. Most of what a short step costs is that first
pod's start and end. Here one process stands by and runs the very same driver when a step is due.

How: Argo holds each new run (``suspend`` in its ``workflowDefaults``). This process replaces the templates of the
drivers by ones that wait for their outputs (Argo's ``suspend`` with ``supplied`` parameters), lets the run go,
runs the driver for each that waits, and writes what it put out into the workflow, as ``argo node set`` would.
Everything it needs to know is in the workflow: when it is killed, the next one goes on.
"""
