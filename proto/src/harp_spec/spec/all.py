"""Reads every area of the spec into the checked model."""

from harp_spec.model import REGISTRY
from harp_spec.spec import (
    code,
    context,
    copies,
    device,
    launch,
    memory,
    session,
    streams,
    tensor_maps,
)

__all__ = ["AREAS", "REGISTRY"]

AREAS = (
    session.SESSION,
    device.DEVICE,
    context.CONTEXT,
    code.CODE,
    memory.MEMORY,
    copies.COPIES,
    streams.STREAMS,
    streams.EVENTS,
    launch.LAUNCH,
    tensor_maps.TENSOR_MAPS,
)

REGISTRY.check()
