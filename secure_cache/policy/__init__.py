"""Floor 2: what the admin wrote, compiled into something that can only answer one way."""
