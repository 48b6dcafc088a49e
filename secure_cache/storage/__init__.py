"""Floor 1: objects under names, with exactly the guarantees that the floors above rely on."""
