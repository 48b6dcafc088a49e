"""Hypothesis on a machine that many tests share: slowness is no finding."""

from hypothesis import HealthCheck, settings

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
