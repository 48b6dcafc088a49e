"""What stands in a header of an answer."""


def cookie_parts(answer):
    """Of the one cookie that an answer sets: its value, and its attributes."""
    (header,) = answer.headers.get_list("set-cookie")
    pair, *rest = header.split("; ")
    attributes = dict(part.lower().partition("=")[::2] for part in rest if part[:8] != "SameSite")
    strict = [part.partition("=")[2] for part in rest if part.startswith("SameSite=")]
    return pair.partition("=")[2], attributes | {"samesite": strict[0]}
