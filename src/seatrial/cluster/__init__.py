"""The platform on Kubernetes: install it, look after it, run pipelines on it.

What the charts declare, ``helm`` installs, and Kubeflow Pipelines runs, this package says in words:
what is waited for, what is not healthy and why, which step runs. It decides by itself on one thing
only: whether a cluster may be touched at all. What can be done with it can be done without it, by
``helm``, ``kubectl`` and the ``kfp`` client, so nothing here keeps state of its own beside a mark on
the namespace.

``api`` is the only module that speaks to Kubernetes, ``kubeflow`` the only one that speaks to Kubeflow
Pipelines; ``health``, ``preflight`` and ``workflow`` judge plain JSON and can be tested without either.
"""
