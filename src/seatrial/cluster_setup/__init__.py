"""What the charts run inside a cluster to set the platform up, each module a command of its own.

``python -m seatrial.cluster_setup.credentials`` makes what is secret, ``...object_store`` buckets, users
and policies, ``...wait`` waits for what a container needs, and ``...unsigned_trailer_filter`` stands in
front of MinIO. Each can be done again at any time without harm, because a cluster starts its pods
again whenever it likes.
"""
