"""Text that others wrote, or that may hold a secret, made fit to be shown or stored (pure).

The one place for both: errors and what is stored pass through :func:`redacted`, and what reaches a terminal,
a log or a page through :func:`printable` too.
"""

from __future__ import annotations

import re
import reprlib

_HIDDEN = "***"
_USER = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)(?P<user>[^\s/?#'\"@]+)@", re.IGNORECASE)
_CONTAINER_SCHEMES = ("abfs://", "abfss://", "az://", "adl://")
_PARAMETER = re.compile(
    r"(?P<name>[?&;#][\w.~%-]{1,64})=(?P<value>[^\s&;#'\"<>)\]]*[^\s&;#'\"<>)\],.:])"
)
_SECRET_NAME = re.compile(
    r"^(x-(amz|goog)-.*|.*token|.*secret.*|.*signature|.*password|.*credentials?|sig|sign|pwd|hmac|policy"
    r"|auth|authorization|(.*[-_])?key([-_]pair)?([-_]id)?|apikey|accountkey|\w*accesskeyid|googleaccessid)$",
    re.IGNORECASE,
)
_BYTES = re.compile(r"(\s[A-Z]\w+:)?\s*\b(b['\"]|bytearray\(|array\()")
_CAUSE = 100
_SHOWN = 60
_LONG = 20  # a version or a flag is shorter, a signature is not
# Control characters, those that turn the direction of writing or have no width, and halves of characters.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def redacted(text: str) -> str:
    """Hide the credentials in the URLs of a text: before the host, and in the query of a signed one.

    Examples
    --------
    >>> redacted("https://user:word@host/a.fits?download=1&X-Amz-Signature=abc")
    'https://***@host/a.fits?download=1&X-Amz-Signature=***'
    """
    if "@" in text:
        text = _USER.sub(_without_user, text)
    return _PARAMETER.sub(_without_value, text) if "=" in text else text


def has_secret(url: str) -> bool:
    """Tell whether a URL holds what :func:`redacted` hides."""
    return redacted(url) != url


def has_credentials(url: str) -> bool:
    """Tell whether a URL names a user, a key or a password before its host."""
    return bool(_USER.sub(_without_user, url) != url)


def printable(text: str) -> str:
    r"""Make one line of a text for a terminal or a log: nothing in it acts, and no secret is in it.

    Examples
    --------
    >>> print(printable("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return _UNPRINTABLE.sub(_escape, redacted(text))


def printable_lines(text: str) -> str:
    """Do as :func:`printable` does, with a text that has several lines of its own."""
    return "\n".join(printable(line) for line in text.split("\n"))


def shown(value: object) -> str:
    """Show a value of someone else's in a message: its ``repr``, but short, whatever it holds.

    Examples
    --------
    >>> shown(["g", "r"])
    "['g', 'r']"
    >>> shown([0.0] * 1000000)
    '[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ...]'
    """
    words = _SHORT.repr(value)
    return words if len(words) <= _SHOWN else f"{words[: _SHOWN - 3]}..."


def cause(error: BaseException) -> str:
    r"""Say why decoding failed, in a few words: without the bytes that checksums and codecs list.

    Examples
    --------
    >>> cause(ValueError("Checksums do not match. Stored: b'\x96{'. Computed: b'a'."))
    'Checksums do not match'
    """
    first = str(error).strip().partition("\n")[0]
    words = _BYTES.split(first)[0].rstrip(" .,;:(")
    if len(words) > _CAUSE:
        words = f"{words[: _CAUSE - 3]}..."
    return words or type(error).__name__


class _Short(reprlib.Repr):
    """A ``repr`` of bounded length and depth; Python's own refuses, or takes minutes, for long integers."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = _SHOWN

    def repr_int(self, x: int, level: int) -> str:
        """Say how long an integer is that no line has room for."""
        return super().repr_int(x, level) if x.bit_length() < 128 else f"<{x.bit_length()} bits>"


_SHORT = _Short()


def _without_user(found: re.Match[str]) -> str:
    scheme, user = found["scheme"], found["user"]
    # Azure's URLs name the container there, as in abfs://container@account.dfs...
    if scheme.lower() in _CONTAINER_SCHEMES and ":" not in user:
        return found[0]
    return f"{scheme}{_HIDDEN}@"


def _without_value(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    if _SECRET_NAME.match(name[1:]) or len(value) >= _LONG:
        return f"{name}={_HIDDEN}"
    return found[0]


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
