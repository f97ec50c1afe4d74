"""Delivery: how a bundle gets from one environment into the next, and back.

:mod:`seatrial.delivery.proposal` prepares a move and shows it; :mod:`seatrial.delivery.reconcile` makes
it once git says so; :mod:`seatrial.delivery.audit` looks whether record, git and what runs agree.
"""
