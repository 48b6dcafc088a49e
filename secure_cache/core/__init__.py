"""Floor 4: one use-case each, over ports."""
