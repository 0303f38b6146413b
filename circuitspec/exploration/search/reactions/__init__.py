"""How components react: to one corruption after another, and two at a time to being patched together."""
