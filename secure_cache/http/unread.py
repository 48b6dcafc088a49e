"""Whether the kernel holds bytes of a connection that nobody has read yet.

To close a socket over them resets it, and the client loses its request without an answer.
"""

import asyncio
import select


def holds_unread(transport: asyncio.BaseTransport) -> bool:
    """Asked without waiting. A connection that is closing already holds nothing for us."""
    if transport.is_closing():
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
