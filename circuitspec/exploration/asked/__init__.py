"""What a file asks to be explored: what is patched with what, which components are free, and on which prompts."""
