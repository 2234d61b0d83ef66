"""No secret stays in a text, however it is written; names, sums and places do."""

from __future__ import annotations

import html
import json
import reprlib
import string
import textwrap
from pathlib import Path
from random import Random
from urllib.parse import quote

import pytest

from trackmill.pipeline.storage.credentials import scrub, scrub_values
from trackmill.pipeline.storage.secrets.values import keep_secret

ROOT = Path(__file__).resolve().parents[2]
_LETTERS = string.ascii_letters + string.digits


def drawn(length: int, alphabet: str = _LETTERS, seed: int = 0) -> str:
    """A secret that nobody has; the first characters are a letter of each case and a digit."""
    rest = "".join(Random(f"{length}{alphabet}{seed}").choices(alphabet, k=length))
    return ("q7K" + rest[3:]) if set("q7K") <= set(alphabet) else rest


HEX, UPPER, BASE64 = "0123456789abcdef", string.ascii_uppercase + string.digits, _LETTERS + "+/"

SHAPES = {
    "id of an AWS key": "AKIA" + drawn(16, UPPER),
    "id of a temporary AWS key": "ASIA" + drawn(16, UPPER),
    "AWS session token": "IQoJb3JpZ2lu" + drawn(300, BASE64),
    "AWS session token of older form": "FwoGZXIvYXdz" + drawn(300, BASE64),
    "Google API key": "AIza" + drawn(35),
    "Google access token": "ya29." + drawn(120),
    "Google refresh token": "1//0" + drawn(60),
    "Google HMAC id": "GOOG1E" + drawn(55, UPPER),
    "JSON web token": f"eyJ{drawn(30)}.eyJ{drawn(80)}.{drawn(43)}",
    "GitHub": "ghp_" + drawn(36),
    "GitHub, fine-grained": f"github_pat_{drawn(22)}_{drawn(59)}",
    "GitLab": "glpat-" + drawn(20),
    "Hugging Face": "hf_" + drawn(34),
    "Slack bot": "xoxb-123456789012-" + drawn(24),
    "Slack app": "xapp-1-" + drawn(30),
    "npm": "npm_" + drawn(36),
    "OpenAI's form": "sk-" + drawn(48),
    "W&B of newer form": "wandb_v1_" + drawn(77),
    "Azure account key": drawn(86, BASE64) + "==",
}


@pytest.mark.parametrize("secret", SHAPES.values(), ids=SHAPES.keys())
def test_a_key_is_told_by_its_shape(secret: str) -> None:
    plain = scrub(f"the server says {secret} is unknown")
    assert plain == "the server says *** is unknown"
    for text in (f"x={secret}", f'{{"x": "{secret}"}}', f"('{secret}',)", f"b'{secret}'", f"<{secret}>"):
        assert secret[8:] not in scrub(text), text
    wrapped = "\n    ".join(textwrap.wrap(secret, 17))
    assert not any(piece in scrub(f"said: {wrapped}\nnext line") for piece in wrapped.split() if len(piece) > 8)
    assert secret[8:14] not in scrub(f"refused: {secret[:20]}...") or secret.endswith("==")


SENTENCES = {
    "W&B key beside its name": ("wandb: login with {} failed", drawn(40, HEX)),
    "W&B key in netrc": ("machine api.wandb.ai\n  login user\n  password {}\n", drawn(40, HEX)),
    "AWS secret beside its id": ("AKIA" + drawn(16, UPPER) + " {}", drawn(40, BASE64)),
    "AWS credentials file": ("[default]\naws_secret_access_key = {}\n", drawn(40, BASE64)),
    "Azure connection string": ("AccountName=me;AccountKey={};EndpointSuffix=core", drawn(86, BASE64) + "=="),
    "Azure SAS": ("container?sv=2024-11-04&se=2026-01-01&sig={}&sp=r", drawn(43, BASE64).replace("+", "%2B")),
    "query of S3, no scheme": ("GET /a.jpg?X-Amz-Date=1&X-Amz-Signature={} HTTP/1.1", drawn(64, HEX)),
    "query of Google": ("GET /a.jpg?X-Goog-Signature={}", drawn(512, HEX)),
    "query of CloudFront": ("GET /a.jpg?Policy=x&Signature={}&Key-Pair-Id=K", drawn(100)),
    "query with a token": ("host/a?token={}", "abc"),
    "query with a key": ("host/a?x=1&key={}", "hunter2"),
    "query inside a URL": ("next=https%3A%2F%2Fhost%2Fa%3Fsig%3D{}%26x", drawn(20)),
    "query in JSON of Go": ("a?x=1\\u0026X-Amz-Signature\\u003d{}", drawn(64, HEX)),
    "query in HTML": ("a?x=1&amp;X-Amz-Signature={}", drawn(64, HEX)),
    "URL": ("see https://host/a.jpg?anything={}", "swordfish"),
    "bearer": ("Bearer {}", drawn(30)),
    "header": ("Authorization: Bearer {}", "swordfish"),
    "header of a dictionary": ("{{'Authorization': 'Basic {}'}}", "bWU6aHVudGVyMg=="),
    "header of pairs": ("(b'authorization', b'token {}')", "swordfish"),
    "header of AWS": ("Authorization: AWS4-HMAC-SHA256 Credential=x/s3, Signature={}", drawn(64, HEX)),
    "header of a service": ("X-Api-Key: {}", "swordfish"),
    "cookie": ("Set-Cookie: session={}; Path=/", drawn(30)),
    "login in a URL": ("s3://me:{}@bucket/x", "hunter2"),
    "login in a URL, a slash in it": ("https://me:{}@host/x", "hun/ter2"),
    "login without a scheme": ("ftp as me:{}@host.example/x", "hunter2"),
    "variable": ("export WANDB_API_KEY={}", "swordfish"),
    "password of MLflow": ("MLFLOW_TRACKING_PASSWORD={}", "swordfish"),
    "setting in TOML": ('passwd = "{}"', "sword fish"),
    "setting in YAML": ("  passphrase: {}\n", "swordfish"),
    "setting in JSON": ('{{"client_secret": "{}"}}', "sword fish"),
    "setting in JSON in JSON": ('{{"a": "{{\\"private_key\\": \\"{}\\"}}"}}', "swordfish"),
    "fsspec": ('FSSPEC_S3={{"key": "{}", "secret": "x"}}', "swordfish"),
    "option": ("--api-key {}", "swordfish"),
    "option with =": ("--set store.password={}", "swordfish"),
    "private key": ("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----", drawn(64, BASE64)),
    "private key, cut": ("-----BEGIN PRIVATE KEY-----\\n{}", drawn(64, BASE64)),
}


@pytest.mark.parametrize(("text", "secret"), SENTENCES.values(), ids=SENTENCES.keys())
def test_a_secret_is_told_by_what_stands_around_it(text: str, secret: str) -> None:
    text = text.format(secret)
    assert secret in text
    hidden = scrub(text)
    assert secret not in hidden
    assert scrub(hidden) == hidden
    assert secret not in scrub(json.dumps({"message": text}))
    assert secret not in scrub(f"before\n{text}\nafter") and "before\n" in scrub(f"before\n{text}\nafter")


NAMES = (
    *("AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "DB_PASSWD", "SIGNING_PASSPHRASE"),
    *("MY_PRIVATE_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS", "HF_TOKEN", "GCP_CREDENTIALS"),
    *("TRACKING_SECRET", "ENCRYPTION_KEY", "FSSPEC_S3_SECRET"),
)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_environment_calls_a_secret_is_hidden_however_it_is_written(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = '9x"Lé/+&= ' + drawn(24)
    monkeypatch.setenv(name, secret)
    forms = [secret, quote(secret), quote(secret, safe=""), json.dumps(secret), repr(secret), html.escape(secret)]
    forms += [json.dumps(secret, ensure_ascii=False), f"{secret[:15]}\n     {secret[15:]}", reprlib.repr(secret)]
    forms += [f"{secret[:20]}…", f"...{secret[-12:]}", f"│ {secret[:4]} │\n│ {secret[4:]} │".replace(" │\n", "\n")]
    for form in forms:
        hidden = scrub(f"said {form} here")
        assert secret[:12] not in hidden and secret[-10:] not in hidden and secret[12:20] not in hidden, form
        assert hidden.startswith("said") and hidden.endswith(" here")


def test_secrets_inside_variables_that_hold_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSSPEC_S3", json.dumps({"key": "first-of-two", "client_kwargs": {"secret": "second-of-2"}}))
    monkeypatch.setenv("HTTPS_PROXY", "http://me:third-one@proxy:3128")
    monkeypatch.setenv("STORE", "AccountName=me;AccountKey=fourth-one;X=1")
    monkeypatch.setenv("GOOGLE_KEYFILE", '{"private_key": "fifth-one"}')
    assert scrub("a first-of-two b second-of-2 c third-one d fourth-one e fifth-one") == "a *** b *** c *** d *** e ***"


def test_variables_that_only_sound_like_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{}")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "keys.json"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/etc/aws/credentials")
    monkeypatch.setenv("RAY_AUTH_MODE", "token-or-not")
    monkeypatch.setenv("SORT_KEY", "source_id")
    text = f"parallel {tmp_path}/keys.json /etc/aws/credentials token-or-not source_id"
    assert scrub(text) == text


def test_a_signature_that_somebody_gave_is_hidden_wherever_it_turns_up() -> None:
    keep_secret(["givenonce77"])
    assert scrub("cannot open x: givenonce77?") == "cannot open x: ***?"


ORDINARY = [
    "sa_223750.jpg sa_000123.tar#./sa_1.jpg sav_000001.mp4#c003 images-0af31b9c",
    f"sha256 {drawn(64, HEX)} sha1 {drawn(40, HEX)} md5 {drawn(32, HEX)} fingerprint {drawn(16, HEX)}",
    f'{{"key": "sa1b-sa_223750-{drawn(12, HEX)}", "uri": "s3://bucket/a/b.jpg", "sha256": "{drawn(64, HEX)}"}}',
    "s3://bucket/raw/2024-01-01T00:00:00/part-00001-of-01000.parquet and gs://b/x#y",
    f"image registry.example/trackmill-mine:0.1.0@sha256:{drawn(64, HEX)}",
    "hf://org/repo/model.safetensors@main, git@host.example:org/repo.git, mailto:me@host.example",
    "TrackEval HOTA 61.2 AP:50@0.75 4 tokens=77 num_tokens: 1024 cls_token pad_token='[PAD]' max_token_length=512",
    "unexpected token at line 3, column 7; the password was refused; Bearer authentication is missing",
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; credentials: see the environment",
    "export AWS_SECRET_ACCESS_KEY=... HF_TOKEN=$TOKEN WANDB_API_KEY=<key> password: required, secret: none",
    "lr=0.02 keypoints=17 keyframe=3 sort_key='id' primary_key=1 monkey=banana design=flat basic block resnet50",
    "sk-learn task-based hf_hub_download github_patch npm_config_cache AKITA ghp glpath-x xoxo",
    "File \"a.py\", line 3, in f\n    raise KeyError('key')\nKeyError: 'key'\n\n  12 | x = token(3)\n",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert scrub(text) == text


def test_our_own_documents_stay() -> None:
    """They show commands, logs and results, and hold no secret."""
    documents = [
        *ROOT.glob("*.md"),
        *ROOT.glob("infra/**/*.md"),
        *ROOT.glob("infra/**/*.yaml"),
        ROOT / "constraints.txt",
    ]
    assert len(documents) > 5
    for path in documents:
        text = path.read_text()
        assert scrub(text) == text, path


def test_settings_are_scrubbed_by_their_names_and_their_texts() -> None:
    values = {"optim": {"lr": 0.1}, "store": {"api_key": "swordfish"}, "urls": ["https://h/a?x=1", ("b", None)]}
    assert scrub_values(values) == {
        "optim": {"lr": 0.1},
        "store": {"api_key": "***"},
        "urls": ["https://h/a?...", ["b", None]],
    }


def test_hostile_text_takes_no_longer_than_its_length_says() -> None:
    """A name or a message may be made of what rules begin with; each of these took minutes to a careless pattern."""
    for piece in ("a,", "://a:", 'secret="', "x-", "?a=b&", "AKIA", "a@", "%", "--secret ", "eyJ_", "ghp_\n1", "a://"):
        assert scrub(piece * 20_000)
