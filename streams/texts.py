"""Texts of others on a terminal: what cannot be seen must not do anything there either."""


def clean(text: object) -> str:
    """Return a text with everything replaced that is not visible: control characters, escapes, overrides."""
    return "".join(char if char.isprintable() else "\ufffd" for char in str(text))
