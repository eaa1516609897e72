"""Which of several peers has something of a patient or a study already, so that the rest goes there, too."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, select

from node.model import DeliveryState
from node.store.schema import delivery, instance, product, run, series


def last_peer(tx: Connection, peers: Sequence[str], study_uid: str, patient_id: str, issuer: str) -> str:
    """The peer of *peers* that something of the patient, or without one of the study, was queued for last."""
    of_patient = and_(series.c.patient_id == patient_id, series.c.issuer == issuer)
    whose = of_patient if patient_id else series.c.study_uid == study_uid
    there = delivery.c.destination.in_(peers) & (delivery.c.state != DeliveryState.CANCELLED)
    received = (
        select(delivery.c.id, delivery.c.destination)
        .join(instance, instance.c.id == delivery.c.instance_id)
        .join(series, series.c.id == instance.c.series_id)
    )
    made = (
        select(delivery.c.id, delivery.c.destination)
        .join(product, product.c.id == delivery.c.product_id)
        .join(run, run.c.id == product.c.run_id)
        .join(series, series.c.id == run.c.series_id)
    )
    last = [
        tx.execute(found.where(whose & there).order_by(delivery.c.id.desc()).limit(1)).first()
        for found in (received, made)
    ]
    return max(((int(row[0]), str(row[1])) for row in last if row), default=(0, ""))[1]
