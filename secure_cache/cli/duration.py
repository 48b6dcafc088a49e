"""Lengths of time on the command line: 90s, 30m, 8h, 90d."""

import re

import click

_FORM = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[int]):
    """Whole seconds, written as the policy writes them."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = _FORM.fullmatch(str(value))
        if found is None:
            self.fail(
                f"{value!r} is not a length of time; write a number and s, m, h or d, like 8h",
                param,
                ctx,
            )
        return int(found[1]) * _SECONDS[found[2]]
