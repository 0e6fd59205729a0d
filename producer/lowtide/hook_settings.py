"""Settings of the application `lowtide.hooks`, which receives the provider's webhooks.

Webhooks that Lowtide sends to handlers are another thing, and have settings of their own: `LOWTIDE_WEBHOOK_SECRETS` and
others of the workers.
"""

from __future__ import annotations

import base64

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from lowtide.addresses import parse_endpoint

MIN_SECRET_BYTES = 24
"""The shortest signing secret that Standard Webhooks allows, in bytes."""
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class HookSettings(BaseSettings):
    """The settings of webhooks from the provider. The fields' descriptions say what each does."""

    webhook_url: str | None = Field(
        None,
        description="Public URL of your hooks application, to which the Gemini Developer API reports the end of a job. "
        "With it, jobs are created with a webhook and polled rarely. Unset: no job has a webhook.",
        examples=["https://api.example/hooks/gemini"],
    )
    hooks_secrets: list[SecretStr] = Field(
        default_factory=list,
        description="Signing secrets of static webhooks, as lowtide hooks register prints them, as JSON: "
        '["whsec_..."]. While a secret is rotated, name the new one and the old one. Unset: no event of a static '
        "webhook is accepted.",
        examples=['["whsec_..."]'],
    )
    hooks_keys_url: str = Field(
        "https://generativelanguage.googleapis.com/.well-known/jwks.json",
        description="URL of the public keys (JWKS) that sign the events of jobs with a webhook.",
    )
    hooks_audience: str | None = Field(
        None,
        description="Audience (aud) of events that are signed by a JSON Web Token. Unset: LOWTIDE_WEBHOOK_URL.",
    )
    hooks_push_audience: str | None = Field(
        None,
        description="Audience of the tokens of a Pub/Sub push subscription, for Vertex AI. Unset: no push is accepted.",
    )
    hooks_push_account: str | None = Field(
        None,
        description="E-mail address of the service account that signs the pushes of that subscription.",
    )
    hooks_push_keys_url: str = Field(
        "https://www.googleapis.com/oauth2/v3/certs",
        description="URL of the public keys (JWKS) that sign the tokens of Google's service accounts.",
    )

    @field_validator("webhook_url", "hooks_keys_url", "hooks_push_keys_url")
    @classmethod
    def _url_is_private_on_the_way(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            endpoint = parse_endpoint(url)
        except ValueError as error:
            raise ValueError(f"{error}; write a URL such as https://api.example/hooks/gemini") from None
        if endpoint.scheme != "https" and endpoint.host not in _LOOPBACK:
            raise ValueError("write an https:// URL; http:// is allowed for 127.0.0.1 only")
        return url

    @field_validator("hooks_push_account")
    @classmethod
    def _account_is_an_address(cls, account: str | None) -> str | None:
        if account is not None and (" " in account or "@" not in account):
            raise ValueError("write an e-mail address, as in pusher@project.iam.gserviceaccount.com")
        return account

    @field_validator("hooks_secrets")
    @classmethod
    def _secrets_sign(cls, secrets: list[SecretStr]) -> list[SecretStr]:
        for secret in secrets:
            try:
                signing_key(secret.get_secret_value())
            except ValueError as error:
                raise ValueError(
                    f'{error}; write it as lowtide hooks register prints it, as in ["whsec_..."]'
                ) from None
        return secrets


def signing_key(secret: str) -> bytes:
    """Returns the bytes of a signing secret of Standard Webhooks. Raises `ValueError` for text that is none."""
    encoded = secret.removeprefix("whsec_")
    try:
        # The reference libraries accept secrets without padding.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith("whsec_") or len(key) < MIN_SECRET_BYTES:
        raise ValueError(f"a signing secret is whsec_ followed by at least {MIN_SECRET_BYTES} bytes in base64")
    return key
