"""Secrets that can be told by how they look, or by the name that stands before them, in any text.

Nothing here knows what this machine's secrets are; `values` does. Each rule is asked only where one of its hints
stands in the text, so that an ordinary line costs some dozens of substring searches.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

MARK = "***"
"""What stands in place of a secret."""

_CUT = r"(?:\.\.\.|…)"
_WRAP = r"\r?\n[ \t│|>]*(?=[\w+/=-]*\d|[\w+/=-]{12}|[\w+/-]*=)"
"""A line break within a token, where what follows may be more of it."""


def _token(prefix: str, characters: str, least: int) -> str:
    """A token that begins with `prefix`; also wrapped over a line, and cut short by an ellipsis, as `repr` does it."""
    body = rf"(?:[{characters}]|{_WRAP}){{{least},}}"
    cut = rf"(?=[{characters}]*[A-Z0-9])[{characters}]{{4,}}(?={_CUT})(?:{_CUT}[{characters}]{{4,}})?"
    return rf"(?<![A-Za-z0-9])(?:{prefix})(?:{body}|{cut})"


_TOKENS: tuple[tuple[tuple[str, ...], str], ...] = (
    # AWS: ids of keys and roles, and session tokens.
    (("AKIA", "ASIA", "AROA", "AIDA"), _token("A(?:KIA|SIA|ROA|IDA)", "A-Z0-9", 16)),
    (("QoJb3", "oGZXIvY", "DYXdz"), _token("IQoJb3JpZ2lu|F[wQ]oGZXIvYXdz|AQoDYXdz", "A-Za-z0-9+/=%_-", 20)),
    # Google: API keys, OAuth access and refresh tokens, client secrets, HMAC keys of its storage.
    (("AIza",), _token("AIza", r"\w-", 30)),
    (("ya29.",), _token(r"ya29\.", r"\w.-", 8)),
    (("1//0",), _token("1//0", r"\w-", 20)),
    (("GOCSPX-",), _token("GOCSPX-", r"\w-", 16)),
    (("GOOG1",), _token("GOOG1", "A-Z0-9", 20)),
    # JSON web tokens.
    (("eyJ",), _token("eyJ", r"\w.-", 16)),
    # Code hosts and registries.
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _token("gh[pousr]_", "A-Za-z0-9", 16)),
    (("github_pat_",), _token("github_pat_", r"\w", 16)),
    (("glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-"), _token("gl(?:pat|dt|rt|cbt|ptt|ft)-", r"\w.-", 16)),
    (("npm_", "pypi-", "dckr_pat_"), _token("npm_|pypi-|dckr_pat_", r"\w-", 32)),
    # Services of machine learning.
    (("hf_", "api_org_"), _token("hf_|api_org_", "A-Za-z0-9", 20)),
    (("wandb_v1_",), _token("wandb_v1_", r"\w", 20)),
    (("sk-",), _token("sk-(?:proj-|ant-|svcacct-|or-v1-|lf-)?", r"\w", 20) + r"[\w-]*"),
    # Chat, mail, payments, vaults.
    (("xox", "xapp-"), _token("xox[a-z]-|xapp-", r"\w-", 8)),
    (("hooks.slack.com",), r"(?<=hooks\.slack\.com)/[\w/]+"),
    (("SG.",), _token(r"SG\.", r"\w.-", 32)),
    (("k_live_", "k_test_"), _token("[srp]k_(?:live|test)_", "A-Za-z0-9", 10)),
    (("hvs.",), _token(r"hvs\.", r"\w-", 20)),
    # 64 bytes in base64, as keys of Azure's storage are; sums of packages are marked.
    (("==",), rf"(?<![\w+/-])(?:[A-Za-z0-9+/]|{_WRAP}){{86,100}}=="),
    # Private keys; one that is cut off is hidden to the end.
    (("PRIVATE KEY",), r"-----BEGIN[A-Z ]* PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END[A-Z ]*-----|\Z)"),
)

_AWS_SECRET = re.compile(
    r"(?<![A-Za-z0-9/+=_.-])(?=\S{0,39}[a-z])(?=\S{0,39}[A-Z])(?=\S{0,39}\d)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"
)
"""40 characters that are a secret where a key's id stands in the same text."""

_HEX_KEY = re.compile(r"(?i:wandb|weights\s*&\s*biases|api[ _-]?key)[^\n]{0,80}?(?<![0-9A-Za-z])([0-9a-f]{40})(?!\w)")

# What follows `Authorization:`, in headers as text, as a dictionary, as pairs.
_HEADER = re.compile(
    r"(?i)((?<![\w-])(?:proxy-)?authorization|(?<![\w-])(?:set-)?cookie|(?<![\w-])x-[\w-]{0,60}(?:token|api-?key|auth))"
    r"(\\*['\"]?\s*[:=,]\s*b?\\*['\"]?)((?:(?!\\*['\"]|\r?\n|\\[nr]).)+)"
)
_BEARER = re.compile(r"(?i)(?<![A-Za-z])((?:bearer|basic|sharedkey)(?:\s+|%20|\+))([\w.~+/=:%-]{6,})")

_LOGIN = re.compile(
    r"(?<![\w.+/-])(?!mailto:)([\w.+%-]{1,100}):(?!//)([^\s:@/'\"]{1,200})"
    r"@((?!sha(?:256|512)\b)(?:(?:[\w-]+\.)+[A-Za-z]{2,}|localhost|\d+(?:\.\d+){3}|[\w-]+(?=:\d)))"
)
"""`user:password@host` without a scheme."""
_URL_LOGIN = re.compile(r"(?<=://)(?![^\s/@]*:\d{1,5}/)[^\s/@:'\"<>]{0,200}:[^\s'\"<>]{0,400}@(?=[\w.\[-])")
_NETRC = re.compile(r"(?i)(\blogin\s+\S+\s+password\s+)(\S+)")

_QUERY = re.compile(
    r"(?i)([?&;]|&amp;|%3F|%26|\\u0026|\\x26)([a-z][\w.-]{0,60})(=|%3D|\\u003d|\\x3d)"
    r"((?:(?!%26|\\u0026|\\x26|\\n)[^&\s'\"<>#;)\]}`])+)"
)
_QUERY_NAME = re.compile(
    r"(?i)(?:x-(?:amz|goog|oss|cos|ms|obs)-(?:signature|credential|security-token)|.*signature|sig|(?:.*[_-])?token"
    r"|(?:.*[_-])?key|api-?key|access|.*secret|passw(?:or)?d|pass|pwd|pw|(?:.*[_-])?auth|credentials?|policy"
    r"|awsaccesskeyid|key-pair-id|hmac|jwt|hdne[at]s?|session(?:_?id)?|code)"
)

_STRONG = (
    r"secret|pass(?:word|wd|phrase)|(?<![A-Za-z])db_?pwd|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key"
    r"|(?:encryption|signing|master|storage|shared|subscription|service|client|auth|sas)[_-]?key"
    r"|connection[_-]?string|credentials?|sharedaccess(?:signature|key)|x-(?:amz|goog)-(?:signature|credential)"
    r"|(?<![A-Za-z])sig|(?<![A-Za-z])sas"
)
_WEAK = r"token|signature|(?<![A-Za-z])pwd|(?<![A-Za-z])auth"
_ASSIGNED = re.compile(
    rf"(?i)(?:(?P<strong>(?:{_STRONG})(?:[_-]?id)?)|(?P<weak>{_WEAK}))[_-]?\d{{0,3}}"
    r"(?P<between>\\*['\"]?\]?\s*(?::=|=>|==|=|:|%3D|%3A|\\u003d)\s*(?:SecretStr\()?b?)"
    r"(?:(?P<quote>\\*['\"])(?P<quoted>(?:(?!(?P=quote)).){0,8192})|(?P<bare>(?!['\"\\{\[(])[^\s'\",;&)\]}\\`]+)"
    r"(?P<end>[ \t]*(?:[\n,;)\]}\\'\"]|$))?)",
    re.DOTALL,
)
_OPTION = re.compile(rf"(?i)(?<![\w-])(--?[\w.-]{{0,80}}(?:{_STRONG}|token))[ ]+(?!-)(['\"]?)([^\s'\"\\]+)")
_JSON_KEY = re.compile(r"(?i)(\\*(['\"])key\\*\2\s*:\s*\\*['\"])((?:(?!\\*['\"]).)+)")
_NO_SECRET = re.compile(
    r"(?i)\*+|\.\.\.|…|<.*|\$.*|\{.*|%[a-z({].*|none|null|nil|true|false|yes|no|str|bytes|int|any|optional.*|required|"
    r"default|empty|set|unset|missing|invalid|expired|not|disabled|enabled|token|env(?:ironment)?|redacted|x+|\d{1,5}"
)
_PATH = re.compile(r"(?:~|\.{1,2})?/[\w./ -]*|[\w.-]+\.(?:json|ini|toml|ya?ml|txt|pem|cfg)")


@dataclass(frozen=True, slots=True)
class _Rule:
    """Asked where one of `hints` stands in the text (in lower case, if `folded`)."""

    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str]
    folded: bool = True


def hide_shapes(text: str) -> str:
    """The text with `***` for all that looks like a secret or is called one."""
    folded = text.lower()
    for rule in _RULES:
        where = folded if rule.folded else text
        if any(hint in where for hint in rule.hints):
            text = rule.pattern.sub(rule.replacement, text)
    return text


def is_secret_name(name: str) -> bool:
    """Whether a setting or a column of that name holds a secret."""
    return bool(_SETTING.search(name))


def is_secret_query(name: str) -> bool:
    """Whether a parameter of a URL's query is a signature, a token, or what goes with one."""
    return bool(_QUERY_NAME.fullmatch(name))


_SETTING = re.compile(rf"(?i)(?:{_STRONG}|(?:^|[_.-])(?:token|auth|pwd))(?:[_-]?id)?$")


def looks_random(value: str) -> bool:
    """Whether a value is more likely drawn by chance than written by a person."""
    if len(value) < 8:
        return False
    if any(char.isdigit() for char in value):
        return any(char.isalpha() for char in value) or len(value) >= 16
    return len(value) >= 20 and value.isalpha() and not value.islower() and not value.isupper()


def _assigned(match: re.Match[str]) -> str:
    whole = match.group(0)
    quoted = match["quoted"]
    value = quoted if quoted is not None else match["bare"]
    if not value or _NO_SECRET.fullmatch(value):
        return whole
    name = (match["strong"] or match["weak"]).lower()
    if name.startswith(("credential", "pwd", "auth")) and _PATH.fullmatch(value):
        return whole
    sure = looks_random(value)
    if match["strong"] and not sure:
        # `password: try another` is a sentence, `password: swordfish` at the end of a line is none.
        sure = quoted is not None or "=" in match["between"] or "%3" in match["between"] or match["end"] is not None
    if not sure:
        return whole
    begin, end = match.span("quoted" if quoted is not None else "bare")
    return whole[: begin - match.start()] + MARK + whole[end - match.start() :]


def _query(match: re.Match[str]) -> str:
    named = is_secret_query(match[2]) and not re.fullmatch(r"\.{3,}[,.]?|…", match[4])
    return f"{match[1]}{match[2]}{match[3]}{MARK}" if named else match.group(0)


def _bearer(match: re.Match[str]) -> str:
    return f"{match[1]}{MARK}" if looks_random(match[2]) or match[2].endswith("=") else match.group(0)


def _option(match: re.Match[str]) -> str:
    return match.group(0) if _NO_SECRET.fullmatch(match[3]) else f"{match[1]} {match[2]}{MARK}"


def _header(match: re.Match[str]) -> str:
    value = match[3].strip()
    return match.group(0) if _NO_SECRET.fullmatch(value) else f"{match[1]}{match[2]}{MARK}"


def _next_to_an_id(match: re.Match[str]) -> str:
    return _AWS_SECRET.sub(MARK, match.group(0))


def _within(match: re.Match[str]) -> str:
    start, stop = match.span(1)
    return f"{match.group(0)[: start - match.start()]}{MARK}{match.group(0)[stop - match.start() :]}"


_RULES = (
    _Rule(("akia", "asia"), re.compile(r"(?s).*A(?:KI|SI)A[A-Z0-9]{8}.*"), _next_to_an_id),
    *(_Rule(hints, re.compile(pattern, re.DOTALL | re.ASCII), MARK, folded=False) for hints, pattern in _TOKENS),
    _Rule(("wandb", "biases", "api key", "api_key", "api-key", "apikey"), _HEX_KEY, _within),
    _Rule(("authorization", "cookie", "x-"), _HEADER, _header),
    _Rule(("bearer", "basic", "sharedkey"), _BEARER, _bearer),
    _Rule(("@",), _URL_LOGIN, ""),
    _Rule(("@",), _LOGIN, rf"{MARK}@\3"),
    _Rule(("login",), _NETRC, rf"\1{MARK}"),
    _Rule(("=", "%3d", "\\u003d", "\\x3d"), _QUERY, _query),
    _Rule(("secret",), _JSON_KEY, rf"\1{MARK}"),
    _Rule(
        (
            "secret",
            "passw",
            "passph",
            "pwd",
            "key",
            "string",
            "credential",
            "sharedaccess",
            "sig",
            "sas",
            "token",
            "auth",
        ),
        _ASSIGNED,
        _assigned,
    ),
    _Rule(("--",), _OPTION, _option),
)
